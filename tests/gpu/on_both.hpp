/// One model in three precisions: the oracle in float64 on the CPU, and the same weights on a GPU in float32
/// and bfloat16.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <parscale/backend/cuda/cuda.hpp>
#include <parscale/causal_lm.hpp>

#include "support/small_model.hpp"

namespace parscale::test {

#define PARSCALE_NEEDS_A_GPU() \
  if (cuda::device_count() == 0) SKIP("there is no GPU")

constexpr Architecture on_gpu(int head_dim, int replicas, CrossAttention kind = CrossAttention::none) {
  return {.head_dim = head_dim,
          .replicas = replicas,
          .cross_attention = kind,
          .cross_layers = kind == CrossAttention::none ? LayerSet::every() : LayerSet::at_run_time()};
}

/// Sizes drawn from `seed`: groups of 1 to 8 heads, with and without a prefix.
inline Shape gpu_shape(std::uint64_t seed) {
  const auto pick = [&](std::uint64_t what, std::initializer_list<Index> values) {
    return values
        .begin()[static_cast<std::size_t>(uniform(seed, what, 0) * static_cast<double>(values.size()))];
  };
  Shape shape = random_shape(seed);
  shape.layers = 2;
  shape.hidden = pick(1, {64, 96, 136, 200});
  shape.intermediate = pick(2, {64, 104, 176});
  shape.kv_heads = pick(3, {1, 2});
  shape.heads = shape.kv_heads * pick(4, {1, 2, 3, 6, 8});
  shape.vocabulary = pick(5, {40, 515, 1000});
  shape.prefix_tokens = pick(6, {0, 3, 48});
  shape.cross_layers = {static_cast<int>(pick(7, {0, 1}))};
  return shape;
}

inline Batch gpu_batch(const Shape& shape, std::uint64_t seed) {
  constexpr Index lengths[] = {1, 2, 17, 64, 130, 200};
  Index tokens = lengths[static_cast<std::size_t>(uniform(seed, 20, 0) * 6)];
  tokens = std::max<Index>(tokens, 2);  // a lone token has no target
  Batch batch = random_batch(shape, 1 + static_cast<Index>(seed % 3), tokens, seed);
  if (seed % 2 == 1)
    batch = batch_of(batch.ids, batch.sequences, random_starts(batch.sequences, tokens, seed));
  if (batch.counted() == 0) batch.targets.front() = 0;
  return batch;
}

/// The backend of a test: no time is spent on finding the fastest products of shapes that come once.
template <class B>
B backend() {
  if constexpr (std::is_constructible_v<B, CudaOptions>)
    return B(CudaOptions{.measure = false});
  else
    return B();
}

/// Weights of moderate size that float32 and bfloat16 hold exactly.
template <class Model>
void fill_exactly(Model& model, std::uint64_t seed) {
  using B = typename Model::BackendType;
  model.store().each([&](const OwnedBy<B>& p) {
    std::vector<Wide<B>> values(static_cast<std::size_t>(p.weight.count()));
    const bool one = fill_of(p.name) == Fill::ones;
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(
          BFloat16(static_cast<float>(0.1 * normal(seed, stream_of(p.name), i) + (one ? 1.0 : 0.0))));
    set_weight<B>(p, 0, values, model.backend());
  });
}

template <class Model>
Model exact_model(const Shape& shape, std::uint64_t seed) {
  Model model(shape, Uninitialised{}, backend<typename Model::BackendType>());
  fill_exactly(model, seed);
  return model;
}

struct Results {
  std::vector<double> logits;
  double loss = 0;
  std::map<std::string, std::vector<double>> gradients;
};

template <class Model>
Results results_of(Model& model, const Batch& batch, Keep keep = Keep::everything) {
  using B = typename Model::BackendType;
  Results r;
  const auto logits = model.logits(batch);
  r.logits.assign(logits.begin(), logits.end());
  model.store().train([](std::string_view) { return true; }, model.backend());
  typename Model::Memory memory(model.shape(), {batch.sequences, batch.tokens, keep, false}, model.backend());
  r.loss = model.loss_and_gradients(batch, 1.0 / static_cast<double>(batch.counted()), memory);
  model.store().each([&](const OwnedBy<B>& p) {
    std::vector<Wide<B>> values(static_cast<std::size_t>(p.gradient.count()));
    model.backend().to_host(p.gradient.flat(), values.data());
    r.gradients[std::string(p.name)].assign(values.begin(), values.end());
  });
  return r;
}

/// The largest difference of gradients, as a part of the largest gradient of all; NaN when there is one.
inline double gradient_error(const Results& is, const Results& should) {
  double scale = 0, most = 0;
  for (const auto& [name, values] : should.gradients) scale = std::max(scale, magnitude(values));
  for (const auto& [name, values] : should.gradients) {
    const auto& others = is.gradients.at(name);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double difference = std::abs(values[i] - others[i]);
      if (!(difference <= most)) most = difference;
    }
  }
  return most / scale;
}

}  // namespace parscale::test
