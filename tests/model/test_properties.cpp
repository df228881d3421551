// Properties of the forward pass that hold for any weights, on random shapes.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <type_traits>

#include "../support/small_model.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using D = double;

/// Logits of one position.
std::vector<D> at(const std::vector<D>& logits, Index position, const Shape& shape) {
  const auto first = logits.begin() + static_cast<std::ptrdiff_t>(position * shape.vocabulary);
  return {first, first + static_cast<std::ptrdiff_t>(shape.vocabulary)};
}

Token other(Token token, const Shape& shape) {
  return static_cast<Token>((token + 1) % static_cast<Token>(shape.vocabulary));
}

/// `batch` with ids [P,B,S] instead of [B,S]: every replica reads the same.
Batch repeated(const Batch& batch, int replicas) {
  Batch own = batch;
  for (int r = 1; r < replicas; ++r) own.ids.insert(own.ids.end(), batch.ids.begin(), batch.ids.end());
  return own;
}

}  // namespace

TEMPLATE_TEST_CASE("A token changes no logits before it, and those at it", "", Plain<D>, Parallel<D>,
                   Expanded<D>, Sublayer<D>) {
  const auto seed = GENERATE(range(1u, 5u));
  const Shape shape = random_shape(seed);
  auto model = random_model<TestType>(shape, seed);
  constexpr Index tokens = 9;
  Batch batch = random_batch(shape, 2, tokens, seed);
  const auto before = model.logits(batch);
  const Index changed = tokens + 4;  // token 4 of the second row
  auto& id = batch.ids[static_cast<std::size_t>(changed)];
  id = other(id, shape);
  const auto after = model.logits(batch);
  for (Index i = 0; i < changed; ++i) CHECK(at(before, i, shape) == at(after, i, shape));
  CHECK(at(before, changed, shape) != at(after, changed, shape));
  CHECK(at(before, 2 * tokens - 1, shape) != at(after, 2 * tokens - 1, shape));
}

TEMPLATE_TEST_CASE("Sequences of a batch do not see each other", "", Plain<D>, Parallel<D>, Expanded<D>,
                   Sublayer<D>) {
  const auto seed = GENERATE(range(1u, 4u));
  const Shape shape = random_shape(seed);
  auto model = random_model<TestType>(shape, seed);
  const Batch both = random_batch(shape, 3, 6, seed);
  const auto together = model.logits(both);
  for (Index b = 0; b < 3; ++b) {
    const auto first = both.ids.begin() + b * 6;
    const auto alone = model.logits(batch_of({first, first + 6}, 1));
    const auto from = together.begin() + b * 6 * shape.vocabulary;
    CHECK(relative_difference(alone, {from, from + 6 * shape.vocabulary}) < 1e-13);
  }
}

TEMPLATE_TEST_CASE("The same ids given once or once a replica are the same batch", "", Parallel<D>,
                   Expanded<D>, Sublayer<D>) {
  const auto seed = GENERATE(range(1u, 4u));
  const Shape shape = random_shape(seed);
  auto model = random_model<TestType>(shape, seed);
  const Batch once = random_batch(shape, 2, 5, seed), each = repeated(once, TestType::architecture.replicas);
  CHECK(model.logits(once) == model.logits(each));
  CHECK(model.loss(once) == model.loss(each));
  const auto a = differentiate(model, once), b = differentiate(model, each);
  CHECK(a.loss == b.loss);
  // Summed over replicas before the first layer's products, or after them: the same but for rounding.
  check_close(a.gradients, b.gradients, 1e-13);
}

TEMPLATE_TEST_CASE("Every replica can read its own ids, and each of them matters", "", Parallel<D>,
                   Expanded<D>, Sublayer<D>) {
  const Shape shape = random_shape(3);
  auto model = random_model<TestType>(shape, 3);
  const Batch once = random_batch(shape, 2, 5, 3);
  const auto same = model.logits(once);
  for (int r = 0; r < TestType::architecture.replicas; ++r) {
    Batch own = repeated(once, TestType::architecture.replicas);
    auto& id =
        own.ids[static_cast<std::size_t>(r * 10 + 7)];  // token 2 of the second row, in replica r alone
    id = other(id, shape);
    const auto changed = model.logits(own);
    for (Index i = 0; i < 7; ++i) CHECK(at(same, i, shape) == at(changed, i, shape));
    for (Index i = 7; i < 10; ++i) CHECK(at(same, i, shape) != at(changed, i, shape));
  }
}

TEST_CASE("An aggregation that listens to one replica gives the logits of that replica's own ids") {
  Shape shape = small_shape();
  shape.smoothing = 0;
  auto model = random_model<Parallel<D>>(shape, 4);
  for (std::size_t r : {0u, 1u}) {
    change_weights(model, [&](const std::string& name, auto& values) {
      if (name == "model.aggregate_layer.2.weight") std::fill(values.begin(), values.end(), 0.0);
      if (name == "model.aggregate_layer.2.bias") values = {r == 0 ? 1000.0 : 0.0, r == 1 ? 1000.0 : 0.0};
    });
    Batch own = random_batch(shape, 1, 6, 1);
    const Batch first = own, second = random_batch(shape, 1, 6, 2);
    own.ids.insert(own.ids.end(), second.ids.begin(), second.ids.end());
    CHECK(model.logits(own) == model.logits(r == 0 ? first : second));
    CHECK(model.logits(own) != model.logits(r == 0 ? second : first));
  }
}

namespace {

/// Block `from[i]` of `count` equal blocks of `values` becomes block i, within each of `outer` parts.
std::vector<D> permuted(const std::vector<D>& values, const std::vector<std::size_t>& from,
                        std::size_t outer) {
  const std::size_t part = values.size() / outer, block = part / from.size();
  std::vector<D> out(values.size());
  for (std::size_t o = 0; o < outer; ++o)
    for (std::size_t i = 0; i < from.size(); ++i)
      for (std::size_t j = 0; j < block; ++j)
        out[o * part + i * block + j] = values[o * part + from[i] * block + j];
  return out;
}

/// Gives replica i of the model everything that replica from[i] had.
template <class Model>
void permute_replicas(Model& model, const std::vector<std::size_t>& from) {
  const auto hidden = static_cast<std::size_t>(model.shape().hidden);
  change_weights(model, [&](const std::string& name, auto& values) {
    if (name.find("prefix_") != std::string::npos || name == "model.replica_embedding" ||
        name.starts_with("model.aggregate_layer.2"))
      values = permuted(values, from, 1);
    if (name == "model.aggregate_layer.0.weight") values = permuted(values, from, hidden * hidden);
    if (name.ends_with("cross_attn_proj.weight")) values = permuted(values, from, hidden);
  });
}

/// The stream before the final norm, [P,B*S*H].
template <class Model>
std::vector<D> last_stream(Model& model, const Batch& batch) {
  typename Model::Memory memory(model.shape(), {batch.sequences, batch.tokens, Keep::nothing, false},
                                model.backend());
  memory.load(batch, {}, model.backend());
  model.forward(memory);
  const auto& stream = memory.streams.back();
  return {stream.data, stream.data + stream.count()};
}

}  // namespace

TEMPLATE_TEST_CASE("Replicas that are permuted with their parameters give permuted streams and equal logits",
                   "", Parallel<D>, Expanded<D>, Sublayer<D>) {
  const auto seed = GENERATE(range(1u, 5u));
  Shape shape = random_shape(seed);
  shape.replica_rope = false;  // it tells replicas apart by their place
  auto model = random_model<TestType>(shape, seed);
  const Batch batch = random_batch(shape, 2, 5, seed);
  const auto logits = model.logits(batch), stream = last_stream(model, batch);
  const std::vector<std::size_t> all{2, 0, 3, 1}, three{1, 0, 2}, two{1, 0};
  const auto& from = TestType::architecture.replicas == 4   ? all
                     : TestType::architecture.replicas == 3 ? three
                                                            : two;
  permute_replicas(model, from);
  CHECK(relative_difference(model.logits(batch), logits) < 1e-12);
  CHECK(relative_difference(last_stream(model, batch), permuted(stream, from, 1)) < 1e-12);
  if (shape.prefix_tokens > 0) CHECK(relative_difference(last_stream(model, batch), stream) > 1e-3);
}

namespace {

/// A model with the weights of `base` where it has them, others random.
template <class Model, class Base>
Model grown(const Shape& shape, Base& base) {
  auto model = random_model<Model>(shape, 99);
  auto known = weights_of(base);
  change_weights(model, [&](const std::string& name, auto& values) {
    if (known.count(name) == 1) values = known[name];
  });
  return model;
}

}  // namespace

TEST_CASE("Replicas that nothing tells apart equal one replica, whatever the aggregation") {
  const auto seed = GENERATE(range(1u, 5u));
  Shape shape = random_shape(seed);
  shape.prefix_tokens = 0;
  shape.replica_embedding = false;
  auto one = random_model<Plain<D>>(shape, seed);
  auto two = grown<Parallel<D>>(shape, one);
  const Batch batch = random_batch(shape, 2, 6, seed);
  CHECK(relative_difference(two.logits(batch), one.logits(batch)) < 1e-13);
  CHECK(std::abs(two.loss(batch) - one.loss(batch)) < 1e-13 * one.loss(batch));
}

TEST_CASE("A sublayer whose output projection is zero changes nothing") {
  Shape shape = small_shape();
  shape.prefix_tokens = 0;
  shape.replica_embedding = false;
  auto one = random_model<Plain<D>>(shape, 5);
  auto four = grown<Sublayer<D>>(shape, one);
  const Batch batch = random_batch(shape, 1, 6, 5);
  CHECK(relative_difference(four.logits(batch), one.logits(batch)) > 1e-3);
  change_weights(four, [](const std::string& name, auto& values) {
    if (name.find("cross_replica_attn.o_proj") != std::string::npos)
      std::fill(values.begin(), values.end(), 0.0);
  });
  CHECK(relative_difference(four.logits(batch), one.logits(batch)) < 1e-13);
}

TEST_CASE(
    "One replica is plain Qwen2 bit for bit, whatever the shape says about prefix, smoothing and crossing") {
  Shape shape = small_shape();
  shape.cross_layers.clear();
  auto plain_model = random_model<Plain<D>>(shape, 5);
  const Batch batch = random_batch(shape, 1, 6, 5);
  const auto logits = plain_model.logits(batch);
  shape.prefix_tokens = 48;
  shape.smoothing = 1;
  shape.replica_embedding = true;
  shape.replica_rope = true;
  shape.cross_layers = {0, 1};
  auto dressed = random_model<Plain<D>>(shape, 5);
  CHECK(dressed.parameters() == plain_model.parameters());
  CHECK(dressed.logits(batch) == logits);
}

TEST_CASE("Architectures that mean the same model are one type") {
  constexpr auto one = [](CrossAttention kind, LayerSet layers) {
    return Architecture{.head_dim = 8, .replicas = 1, .cross_attention = kind, .cross_layers = layers};
  };
  static_assert(std::is_same_v<CausalLM<one(CrossAttention::expanded, {}), Cpu<D>>, Plain<D>>);
  static_assert(std::is_same_v<CausalLM<one(CrossAttention::sublayer, {1}), Cpu<D>>, Plain<D>>);
  static_assert(std::is_same_v<CausalLM<crossing(2, CrossAttention::none), Cpu<D>>, Parallel<D>>);
  static_assert(!std::is_same_v<Expanded<D>, CausalLM<crossing(3, CrossAttention::sublayer), Cpu<D>>>);
  SUCCEED();
}
