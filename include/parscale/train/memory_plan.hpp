/// What a training run will take, before anything is allocated.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "../causal_lm.hpp"

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

}  // namespace parscale
