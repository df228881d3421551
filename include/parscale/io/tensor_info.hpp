/// What a tensor file says about a tensor, and the arithmetic of its size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "../config.hpp"
#include "dtype.hpp"

namespace parscale::io {

/// A tensor that is going to be written.
struct TensorSpec {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape = {};  ///< no axes: one element
};

/// A tensor in a file. Its bytes are [begin, end), counted from the end of the header.
struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape = {};
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  /// Elements; the product of the shape.
  std::size_t count() const { return static_cast<std::size_t>((end - begin) / size_of(dtype)); }
};

/// "[4,2,48,128]", for messages.
inline std::string to_string(const std::vector<Index>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ',';
    text += std::to_string(shape[i]);
  }
  return text += ']';
}

/// Bytes of a tensor; nothing when a size is negative or the product does not fit into 63 bits. Sizes beside
/// a zero count as well, so that the order of the axes does not matter.
inline std::optional<std::uint64_t> bytes_of(Dtype dtype, const std::vector<Index>& shape) {
  constexpr auto limit = static_cast<std::uint64_t>(std::numeric_limits<Index>::max());
  std::uint64_t bytes = size_of(dtype);
  bool empty = false;
  for (Index size : shape) {
    if (size < 0) return std::nullopt;
    empty |= size == 0;
    const std::uint64_t factor = size == 0 ? 1 : static_cast<std::uint64_t>(size);
    if (bytes > limit / factor) return std::nullopt;
    bytes *= factor;
  }
  return empty ? 0 : bytes;
}

}  // namespace parscale::io
