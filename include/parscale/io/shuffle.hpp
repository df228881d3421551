/// Random orders that need no generator to be carried along: an order is a function of its size and its key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "hash.hpp"

namespace parscale::io {

/// A number below `bound` (1 to 2^32) made of the upper half of 64 random bits, without a division; its bias
/// is below bound / 2^32.
constexpr std::uint64_t below(std::uint64_t bound, std::uint64_t random_bits) {
  return (random_bits >> 32) * bound >> 32;
}

/// The numbers 0 to size - 1 in a random order that (size, key) decides (Fisher and Yates, from the end).
inline std::vector<std::size_t> shuffled(std::size_t size, std::uint64_t key) {
  std::vector<std::size_t> order(size);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t left = size; left > 1; --left)
    std::swap(order[left - 1], order[below(left, Hash().add(key).add(std::uint64_t{left}).value())]);
  return order;
}

}  // namespace parscale::io
