/// Small models with random weights, random batches, and reading both back.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <parscale/backend/cpu/cpu.hpp>
#include <parscale/causal_lm.hpp>
#include <parscale/train/trainer.hpp>
#include <string>
#include <vector>

namespace parscale::test {

constexpr Architecture plain(int replicas) { return {.head_dim = 8, .replicas = replicas}; }
/// Layers that cross are listed by the shape.
constexpr Architecture crossing(int replicas, CrossAttention kind) {
  return {
      .head_dim = 8, .replicas = replicas, .cross_attention = kind, .cross_layers = LayerSet::at_run_time()};
}

/// The kinds of models that properties are tried on: plain Qwen2, ParScale, and both ways to cross.
template <class T>
using Plain = CausalLM<plain(1), Cpu<T>>;
template <class T>
using Parallel = CausalLM<plain(2), Cpu<T>>;
template <class T>
using Expanded = CausalLM<crossing(3, CrossAttention::expanded), Cpu<T>>;
template <class T>
using Sublayer = CausalLM<crossing(4, CrossAttention::sublayer), Cpu<T>>;

/// Two layers, of which the second crosses; the replicas start apart.
inline Shape small_shape() {
  return {.layers = 2,
          .hidden = 12,
          .intermediate = 14,
          .heads = 2,
          .kv_heads = 1,
          .vocabulary = 19,
          .prefix_tokens = 3,
          .rope_theta = 50.0,
          .rms_norm_eps = 1e-3,
          .smoothing = 0.1,
          .tied = true,
          .replica_rope = true,
          .replica_embedding = true,
          .cross_layers = {1}};
}

/// One of many shapes: sizes and options drawn from `seed`.
inline Shape random_shape(std::uint64_t seed) {
  const auto pick = [&](std::uint64_t what, Index least, Index most) {
    return least + static_cast<Index>(uniform(seed, what, 0) * static_cast<double>(most - least + 1));
  };
  Shape shape = small_shape();
  shape.layers = pick(1, 1, 3);
  shape.hidden = pick(2, 5, 17);
  shape.intermediate = pick(3, 3, 20);
  shape.kv_heads = pick(4, 1, 2);
  shape.heads = shape.kv_heads * pick(5, 1, 3);
  shape.vocabulary = pick(6, 11, 40);
  shape.prefix_tokens = pick(7, 0, 6);
  shape.tied = pick(8, 0, 1) == 1;
  shape.replica_rope = pick(9, 0, 1) == 1;
  shape.replica_embedding = pick(10, 0, 1) == 1;
  shape.smoothing = 0.1 * static_cast<double>(pick(11, 0, 3));
  shape.cross_layers.clear();
  for (Index i = 0; i < shape.layers; ++i)
    if (pick(12 + static_cast<std::uint64_t>(i), 0, 1) == 1)
      shape.cross_layers.push_back(static_cast<int>(i));
  return shape;
}

/// Tensors by name.
template <class T>
using Tensors = std::map<std::string, std::vector<T>>;

template <class Model>
using ScalarOf = Scalar<typename Model::BackendType>;

/// Calls f(name, values) for every weight; what f leaves in values is the weight afterwards.
template <class Model, class F>
void change_weights(Model& model, F f) {
  using T = ScalarOf<Model>;
  model.store().each([&](const Owned<T>& p) {
    std::vector<T> values(static_cast<std::size_t>(p.weight.count()));
    model.backend().to_host(p.weight.flat(), values.data());
    f(std::string(p.name), values);
    model.backend().from_host(values.data(), p.weight.flat());
  });
}

/// Large random weights everywhere, zeros and ones of the initialisation included: nothing is hidden.
template <class Model>
Model& randomise(Model& model, std::uint64_t seed) {
  change_weights(model, [&](const std::string& name, auto& values) {
    const std::uint64_t stream = stream_of(name);
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<ScalarOf<Model>>(0.3 * normal(seed, stream, i) + (fill_of(name) == Fill::ones));
  });
  return model;
}

template <class Model>
Model random_model(const Shape& shape, std::uint64_t seed, int threads = 1) {
  Model model(shape, seed, typename Model::BackendType(CpuOptions{.threads = threads}));
  randomise(model, seed);
  return model;
}

template <class Model>
Tensors<ScalarOf<Model>> weights_of(Model& model) {
  Tensors<ScalarOf<Model>> all;
  change_weights(model, [&](const std::string& name, auto& values) { all[name] = values; });
  return all;
}

/// Gradients of the trained parameters.
template <class Model>
Tensors<ScalarOf<Model>> gradients_of(Model& model) {
  using T = ScalarOf<Model>;
  Tensors<T> all;
  model.store().each([&](const Owned<T>& p) {
    if (!p.gradient) return;
    std::vector<T> values(static_cast<std::size_t>(p.gradient.count()));
    model.backend().to_host(p.gradient.flat(), values.data());
    all[std::string(p.name)] = values;
  });
  return all;
}

template <class T>
double magnitude(const std::vector<T>& values) {
  double most = 0;
  for (T v : values) most = std::max(most, std::abs(static_cast<double>(v)));
  return most;
}

/// The largest difference, as a part of the largest element; NaN when there is one.
template <class T>
double relative_difference(const std::vector<T>& a, const std::vector<T>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(difference <= most)) most = difference;
  }
  return most == 0 ? 0 : most / std::max(magnitude(a), magnitude(b));
}

/// Each tensor close to its counterpart, relative to the largest element of all: some gradients are zero in
/// mathematics.
template <class T>
void check_close(const Tensors<T>& a, const Tensors<T>& b, double tolerance) {
  REQUIRE(a.size() == b.size());
  double scale = 0;
  for (const auto& [name, values] : a) scale = std::max(scale, magnitude(values));
  for (const auto& [name, values] : a) {
    INFO(name);
    REQUIRE(b.count(name) == 1);
    const auto& others = b.at(name);
    CHECK(relative_difference(values, others) * std::max(magnitude(values), magnitude(others)) <=
          tolerance * scale);
  }
}

/// Tokens from `seed`, [count].
inline std::vector<Token> random_tokens(Index count, Index vocabulary, std::uint64_t seed) {
  std::vector<Token> ids(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<Token>(uniform(seed, 0, i) * static_cast<double>(vocabulary));
  return ids;
}

/// Rows cut into documents of random lengths from 1 to 4.
inline std::vector<std::int32_t> random_starts(Index sequences, Index tokens, std::uint64_t seed) {
  std::vector<std::int32_t> starts;
  for (Index i = 0; i < sequences * tokens; ++i) {
    const auto token = static_cast<std::int32_t>(i % tokens);
    const bool begins = token == 0 || uniform(seed, 1, static_cast<std::uint64_t>(i)) < 0.4;
    starts.push_back(begins ? token : starts.back());
  }
  return starts;
}

inline Batch random_batch(const Shape& shape, Index sequences, Index tokens, std::uint64_t seed) {
  return batch_of(random_tokens(sequences * tokens, shape.vocabulary, seed), sequences);
}

/// Loss and gradients of one batch by themselves.
template <class Model>
struct Differentiated {
  double loss;
  Tensors<ScalarOf<Model>> gradients;
};
template <class Model>
Differentiated<Model> differentiate(Model& model, const Batch& batch, Keep keep = Keep::everything) {
  model.store().train([](std::string_view) { return true; }, model.backend());
  const bool own_ids = batch.ids.size() > static_cast<std::size_t>(batch.sequences * batch.tokens);
  typename Model::Memory memory(model.shape(), {batch.sequences, batch.tokens, keep, own_ids},
                                model.backend());
  const double loss = model.loss_and_gradients(batch, 1.0 / static_cast<double>(batch.counted()), memory);
  return {loss, gradients_of(model)};
}

}  // namespace parscale::test
