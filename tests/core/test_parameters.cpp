// Visitors over named tensors, and how parameters start.
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <parscale/core/initialise.hpp>
#include <parscale/core/parameters.hpp>
#include <string>
#include <vector>

using namespace parscale;

namespace {

template <class Tensor>
struct Inner {
  Tensor weight, bias;
  static void each(auto&& f, auto&... w) {
    f("weight", w.weight...);
    f("bias", w.bias...);
  }
};

template <class Tensor>
struct Outer {
  Tensor first;
  Inner<Tensor> inner;
  Tensor absent;
  static void each(auto&& f, auto&... w) {
    f("first", w.first...);
    Inner<Tensor>::each(inside("inner", f), w.inner...);
    f("absent", w.absent...);
  }
};

Outer<Extent> extents() { return {.first = {2, 3}, .inner = {{4, 3}, {4}}, .absent = {}}; }

std::vector<double> initialised(const char* name, std::uint64_t seed, std::size_t count = 1000) {
  std::vector<double> values(count, -7);
  initialise(std::span(values), name, 0.02, seed);
  return values;
}

}  // namespace

TEST_CASE("A visitor names tensors by the blocks that they are inside of, in order") {
  std::vector<std::string> names;
  const auto group = extents();
  Outer<Extent>::each([&](std::string_view name, const Extent&) { names.emplace_back(name); }, group);
  CHECK(names == std::vector<std::string>{"first", "inner.weight", "inner.bias", "absent"});
}

TEST_CASE("A visitor walks several groups at once") {
  const auto sizes = extents();
  Outer<int> numbers{.first = 1, .inner = {2, 3}, .absent = 4};
  std::string seen;
  Outer<int>::each(
      [&](std::string_view, const Extent& extent, int& number) {
        seen += std::to_string(number) + ":" + std::to_string(extent.count()) + " ";
        number = 0;
      },
      sizes, numbers);
  CHECK(seen == "1:6 2:12 3:4 4:0 ");
  CHECK(numbers.inner.bias == 0);
}

TEST_CASE("A group counts the elements of all its tensors") {
  CHECK(count(extents()) == 6 + 12 + 4);
  CHECK(count(Outer<Extent>{}) == 0);
}

TEST_CASE("Bound views lie one after the other in visiting order, and absent tensors have none") {
  std::vector<double> memory(22);
  const auto views = bind(extents(), memory.data());
  CHECK(views.first.data == memory.data());
  CHECK(views.inner.weight.data == memory.data() + 6);
  CHECK(views.inner.weight.extent == Extent{4, 3});
  CHECK(views.inner.bias.data == memory.data() + 18);
  CHECK(views.absent.data == nullptr);
  CHECK_FALSE(views.absent);
}

TEST_CASE("Norm gains start at one") {
  for (const char* name : {"model.norm.weight", "model.layers.0.input_layernorm.weight",
                           "model.layers.3.cross_replica_layernorm.weight"})
    CHECK(initialised(name, 1) == std::vector<double>(1000, 1.0));
}

TEST_CASE("Biases and the sublayer's output projection start at zero") {
  for (const char* name :
       {"model.layers.0.self_attn.q_proj.bias", "model.aggregate_layer.0.bias",
        "model.layers.0.cross_replica_attn.k_proj.bias", "model.layers.0.cross_replica_attn.o_proj.weight"})
    CHECK(initialised(name, 1) == std::vector<double>(1000, 0.0));
}

TEST_CASE("Everything else is drawn from N(0, initializer_range)") {
  for (const char* name :
       {"model.embed_tokens.weight", "model.layers.0.self_attn.prefix_k", "model.aggregate_layer.0.weight",
        "model.layers.0.self_attn.o_proj.weight", "model.layers.0.self_attn.cross_attn_proj.weight",
        "model.replica_embedding", "lm_head.weight"}) {
    INFO(name);
    const auto values = initialised(name, 1, 20000);
    double sum = 0, squares = 0;
    for (double v : values) sum += v, squares += v * v;
    CHECK(std::abs(sum / 20000) < 0.02 * 0.03);
    CHECK(std::abs(std::sqrt(squares / 20000) - 0.02) < 0.02 * 0.03);
  }
}

TEST_CASE("A parameter's start depends on its name and the seed, not on how much is drawn") {
  const auto a = initialised("model.layers.0.self_attn.prefix_k", 1);
  CHECK(a != initialised("model.layers.0.self_attn.prefix_v", 1));
  CHECK(a != initialised("model.layers.0.self_attn.prefix_k", 2));
  const auto longer = initialised("model.layers.0.self_attn.prefix_k", 1, 1500);
  CHECK(std::vector<double>(longer.begin(), longer.begin() + 1000) == a);
}

TEST_CASE("In float32 parameters start at the rounded float64 values") {
  const auto wide = initialised("lm_head.weight", 9);
  std::vector<float> narrow(wide.size());
  initialise(std::span(narrow), "lm_head.weight", 0.02, 9);
  for (std::size_t i = 0; i < wide.size(); ++i) CHECK(narrow[i] == static_cast<float>(wide[i]));
}

TEST_CASE("Reports name how a parameter was filled") {
  CHECK(std::string(name_of(Fill::ones)) == "ones");
  CHECK(std::string(name_of(Fill::zeros)) == "zeros");
  CHECK(std::string(name_of(Fill::normal)) == "N(0, initializer_range)");
}

TEST_CASE("Weight decay spares biases and norms, and nothing else") {
  for (const char* name :
       {"model.norm.weight", "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight", "model.layers.0.cross_replica_layernorm.weight",
        "model.layers.0.self_attn.q_proj.bias", "model.aggregate_layer.2.bias"})
    CHECK_FALSE(decays(name));
  for (const char* name :
       {"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.prefix_k", "model.aggregate_layer.0.weight", "model.replica_embedding",
        "model.layers.0.self_attn.cross_attn_proj.weight", "lm_head.weight"})
    CHECK(decays(name));
}
