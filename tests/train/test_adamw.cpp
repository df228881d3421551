// AdamW against a scalar reference, its decay rule, and clipping.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cmath>
#include <parscale/backend/cpu/cpu.hpp>
#include <parscale/train/adamw.hpp>
#include <vector>

using namespace parscale;

namespace {

/// Parameters with gradients, by name: all that the optimiser asks of a store.
struct Parameter {
  std::string name;
  std::vector<double> weight, gradient, first = std::vector<double>(weight.size()), second = first;
  bool frozen = false;
};
struct Store {
  std::vector<Parameter> parameters;
  template <class F>
  void each(F f) {
    for (auto& p : parameters) {
      const Extent extent{static_cast<Index>(p.weight.size())};
      const auto trained = [&](std::vector<double>& v) {
        return p.frozen ? Part<double>{} : Part<double>{v.data(), extent.count()};
      };
      f(Owned<double>{.name = p.name,
                      .extent = extent,
                      .weight = {p.weight.data(), extent.count()},
                      .gradient = trained(p.gradient),
                      .first = trained(p.first),
                      .second = trained(p.second)});
    }
  }
};

/// Decoupled weight decay, then Adam with corrected moments (arXiv 1711.05101), one number.
struct Reference {
  double weight, first = 0, second = 0;
  void update(const AdamW& o, double g, double rate, int step, double decay) {
    first = o.beta1 * first + (1 - o.beta1) * g;
    second = o.beta2 * second + (1 - o.beta2) * g * g;
    const double m = first / (1 - std::pow(o.beta1, step)), v = second / (1 - std::pow(o.beta2, step));
    weight = weight * (1 - rate * decay) - rate * m / (std::sqrt(v) + o.epsilon);
  }
};

bool near(double a, double b) { return std::abs(a - b) <= 1e-13 * std::max(1.0, std::abs(b)); }

}  // namespace

TEST_CASE("AdamW follows the scalar reference over several steps, decay and clipping included") {
  const AdamW adamw{.beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.1};
  Store store{{{"lm_head.weight", {1, -2, 0.5}, {0, 0, 0}}, {"q_proj.bias", {0.3}, {0}}}};
  Reference expected[] = {{1}, {-2}, {0.5}, {0.3}};
  Cpu<double> on(CpuOptions{.threads = 1});
  for (int step = 1; step <= 6; ++step) {
    const double rate = 0.1 / step, scale = step % 2 == 0 ? 0.25 : 1.0;
    const double gradients[] = {0.1 * step, -1.0 / step, step == 3 ? 5.0 : 0.0, 0.7};
    for (std::size_t i = 0; i < 3; ++i) store.parameters[0].gradient[i] = gradients[i];
    store.parameters[1].gradient[0] = gradients[3];
    adamw.update(store, rate, step, scale, on);
    for (std::size_t i = 0; i < 4; ++i) {
      expected[i].update(adamw, gradients[i] * scale, rate, step, i < 3 ? 0.1 : 0.0);
      const auto& p = store.parameters[i / 3];
      CHECK(near(p.weight[i % 3], expected[i].weight));
      CHECK(near(p.first[i % 3], expected[i].first));
      CHECK(near(p.second[i % 3], expected[i].second));
    }
  }
}

TEST_CASE("AdamW treats every number of a long tensor alike, in float64 and float32, on several threads") {
  constexpr Index n = 40001;
  const AdamW adamw{.epsilon = 1e-6, .weight_decay = 0.1};
  Store store{{{"lm_head.weight", std::vector<double>(n), std::vector<double>(n)}}};
  auto& p = store.parameters[0];
  const auto at = [](Index i) { return static_cast<std::size_t>(i); };
  std::vector<float> narrow(n), narrow_gradient(n), narrow_first(n), narrow_second(n);
  for (Index i = 0; i < n; ++i) {
    narrow[at(i)] = static_cast<float>(normal(1, 1, static_cast<std::uint64_t>(i)));
    narrow_gradient[at(i)] = static_cast<float>(normal(1, 2, static_cast<std::uint64_t>(i)));
    p.weight[at(i)] = narrow[at(i)];
    p.gradient[at(i)] = narrow_gradient[at(i)];
  }
  const auto before = p.weight;
  Cpu<double> on(CpuOptions{.threads = 3});
  adamw.update(store, 0.01, 1, 0.5, on);
  Cpu<float> narrow_on(CpuOptions{.threads = 3});
  narrow_on.adamw({.weight = {narrow.data(), {n}},
                   .gradient = {narrow_gradient.data(), {n}},
                   .first = {narrow_first.data(), {n}},
                   .second = {narrow_second.data(), {n}},
                   .learning_rate = 0.01,
                   .beta1 = adamw.beta1,
                   .beta2 = adamw.beta2,
                   .epsilon = adamw.epsilon,
                   .weight_decay = 0.1,
                   .gradient_scale = 0.5,
                   .step = 1});
  int wrong = 0, wrong_narrow = 0;
  for (Index i = 0; i < n; ++i) {
    Reference expected{before[at(i)]};
    expected.update(adamw, 0.5 * p.gradient[at(i)], 0.01, 1, 0.1);
    wrong += near(p.weight[at(i)], expected.weight) ? 0 : 1;
    wrong_narrow +=
        std::abs(narrow[at(i)] - expected.weight) < 5e-7 * std::max(1.0, std::abs(expected.weight)) ? 0 : 1;
  }
  CHECK(wrong == 0);
  CHECK(wrong_narrow == 0);
}

TEST_CASE("AdamW's defaults are those of Hugging Face's Trainer") {
  const AdamW adamw;
  CHECK(adamw.beta1 == 0.9);
  CHECK(adamw.beta2 == 0.999);
  CHECK(adamw.epsilon == 1e-8);
  CHECK(adamw.weight_decay == 0.0);
}

TEST_CASE("The first update moves every weight by the learning rate against its gradient") {
  Store store{{{"lm_head.weight", {1, 1, 1}, {1e-3, -7, 0}}}};
  Cpu<double> on(CpuOptions{.threads = 1});
  AdamW{}.update(store, 0.01, 1, 1, on);
  CHECK(std::abs(store.parameters[0].weight[0] - 0.99) < 1e-6);
  CHECK(std::abs(store.parameters[0].weight[1] - 1.01) < 1e-6);
  CHECK(store.parameters[0].weight[2] == 1);
}

TEST_CASE("Weight decay touches matrices and prefixes, never biases and norms") {
  Store store;
  for (const char* name : {"model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.prefix_k",
                           "model.aggregate_layer.0.weight", "model.layers.0.self_attn.q_proj.bias",
                           "model.norm.weight", "model.layers.0.input_layernorm.weight"})
    store.parameters.push_back({name, {2.0}, {0.0}});
  Cpu<double> on(CpuOptions{.threads = 1});
  AdamW{.weight_decay = 0.5}.update(store, 0.1, 1, 1, on);
  for (std::size_t i = 0; i < 6; ++i) {
    INFO(store.parameters[i].name);
    CHECK(near(store.parameters[i].weight[0], i < 3 ? 2.0 * 0.95 : 2.0));
  }
}

TEST_CASE("A frozen parameter is not updated, not even decayed") {
  Store store{{{"lm_head.weight", {2.0}, {3.0}}}};
  store.parameters[0].frozen = true;
  Cpu<double> on(CpuOptions{.threads = 1});
  AdamW{.weight_decay = 0.5}.update(store, 0.1, 1, 1, on);
  CHECK(store.parameters[0].weight[0] == 2.0);
}

TEST_CASE("Gradients are clipped as PyTorch clips them") {
  CHECK(clip_factor(4.0, 1.0) == 1.0 / (4.0 + 1e-6));
  CHECK(clip_factor(0.5, 1.0) == 1.0);
  CHECK(clip_factor(1.0, 1.0) == 1.0 / (1.0 + 1e-6));
  CHECK(clip_factor(0.0, 1.0) == 1.0);
  CHECK(clip_factor(1e30, 1e-3) == 1e-3 / (1e30 + 1e-6));
}

TEST_CASE("A largest norm of zero never clips") {
  CHECK(clip_factor(1e30, 0.0) == 1.0);
  CHECK(clip_factor(0.0, 0.0) == 1.0);
}
