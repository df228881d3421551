/// A run of consecutive elements, or of other things that are counted.
#pragma once

#include <algorithm>

#include "tensor.hpp"

namespace parscale {

/// [first, first + count)
struct Stretch {
  Index first = 0, count = 0;
  bool operator==(const Stretch&) const = default;

  /// What lies in both; nothing, at one of this one's ends, when they do not touch.
  Stretch meet(const Stretch& other) const {
    const Index begin = std::max(first, other.first);
    const Index end = std::min(first + count, other.first + other.count);
    return {std::min(begin, first + count), std::max(Index{0}, end - begin)};
  }
};

/// The share of a rank when `count` things go to `world` ranks as evenly as they can, in rank order.
inline Stretch share_of(Index count, int rank, int world) {
  const Index first = count * rank / world;
  return {first, count * (rank + 1) / world - first};
}

}  // namespace parscale
