/// What a training run will take, before anything is allocated.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "../causal_lm.hpp"
#include "../store/shared_layout.hpp"
#include "trainable.hpp"

namespace parscale {

struct MemoryPlan {
  struct Line {
    std::string what;
    std::size_t bytes;
  };
  std::vector<Line> lines;

  std::size_t total() const {
    std::size_t sum = 0;
    for (const Line& line : lines) sum += line.bytes;
    return sum;
  }
};

/// "1.5 GiB", "17.3 MiB".
inline std::string bytes_text(std::size_t bytes) {
  const bool large = bytes >= std::size_t{1} << 30;
  const double value = static_cast<double>(bytes) / (large ? 0x1p30 : 0x1p20);
  const auto tenths = std::llround(value * 10);
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + (large ? " GiB" : " MiB");
}

/// The plan of training a model of this shape on batches of `room`, `trained` of its parameters being
/// trained.
template <class Model>
MemoryPlan memory_plan(const Shape& shape, const typename Model::Room& room, Index parameters, Index trained,
                       const typename Model::BackendType& on) {
  using B = typename Model::BackendType;
  const auto bytes = [](Index elements) { return static_cast<std::size_t>(elements) * sizeof(Wide<B>); };
  const std::size_t lent =
      std::is_same_v<Scalar<B>, Wide<B>> ? 0 : static_cast<std::size_t>(parameters) * sizeof(Scalar<B>);
  const Layout layout{
      .sequences = room.sequences, .tokens = room.tokens, .replicas = Model::architecture.replicas};
  return {{{"weights", bytes(parameters) + lent},
           {"gradients", bytes(trained)},
           {"optimizer moments", 2 * bytes(trained)},
           {"activations", Model::Memory::bytes(shape, room)},
           {"backend scratch", on.scratch_bytes(shape, layout, Model::architecture.head_dim)}}};
}

/// The plan of the rank that takes most when a model is divided (a Model with a ShardedStore). Of the
/// backend, `on` must know its scratch memory only: there need not be one.
template <class Model, class On>
MemoryPlan memory_plan(const Shape& shape, const typename Model::Room& room, const Trainable& trainable,
                       const Division& division, const On& on) {
  const Layout layout{
      .sequences = room.sequences, .tokens = room.tokens, .replicas = Model::architecture.replicas};
  const StoreBytes store = Model::Store::bytes(shape, trainable, division);
  MemoryPlan plan{{{"weights", store.weights},
                   {"gradients", store.gradients},
                   {"optimizer moments", store.moments},
                   {"activations", Model::Memory::bytes(shape, room)},
                   {"backend scratch", on.scratch_bytes(shape, layout, Model::architecture.head_dim)}}};
  if (store.gathered > 0) plan.lines.insert(plan.lines.begin() + 1, {"gathered weights", store.gathered});
  if (store.sums > 0) plan.lines.insert(plan.lines.end() - 2, {"sums of sequences", store.sums});
  return plan;
}

/// The smallest number of ranks whose plan fits `bytes` on each; 0: not even `most` do.
template <class Model, class On>
int smallest_world(const Shape& shape, const typename Model::Room& room, const Trainable& trainable,
                   Division division, const On& on, std::size_t bytes, int most = 4096) {
  const auto fits = [&](int world) {
    division.world = world;
    return memory_plan<Model>(shape, room, trainable, division, on).total() <= bytes;
  };
  int fitting = 1;
  for (; !fits(fitting); fitting *= 2)
    if (fitting >= most) return 0;
  int too_small = fitting / 2;
  while (fitting - too_small > 1) {
    const int middle = (fitting + too_small) / 2;
    (fits(middle) ? fitting : too_small) = middle;
  }
  return fitting;
}

}  // namespace parscale
