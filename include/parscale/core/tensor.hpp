/// Tensors: a pointer and a shape. Views own nothing; a backend's memory owns the elements.
#pragma once

#include <array>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "../config.hpp"

namespace parscale {

/// The sizes of up to four axes, slowest first. No axes or an axis of zero: the tensor is absent.
struct Extent {
  std::array<Index, 4> dims{};
  int rank = 0;

  constexpr Extent() = default;
  constexpr Extent(std::initializer_list<Index> sizes) {
    for (Index n : sizes) dims[static_cast<std::size_t>(rank++)] = n;
  }
  constexpr Index operator[](int axis) const { return dims[static_cast<std::size_t>(axis)]; }
  constexpr Index count() const {
    Index n = rank == 0 ? 0 : 1;
    for (int i = 0; i < rank; ++i) n *= (*this)[i];
    return n;
  }
  /// Seen as a matrix: the last axis is the columns, all others together are the rows.
  constexpr Index cols() const { return rank == 0 ? 0 : (*this)[rank - 1]; }
  constexpr Index rows() const { return cols() == 0 ? 0 : count() / cols(); }
  constexpr bool operator==(const Extent&) const = default;
};

/// "[4,2,48,128]", for messages.
inline std::string to_string(const Extent& extent) {
  std::string text = "[";
  for (int i = 0; i < extent.rank; ++i) {
    if (i > 0) text += ',';
    text += std::to_string(extent[i]);
  }
  return text += ']';
}

/// A shaped, contiguous, non-owning tensor in some backend's memory. False when absent.
template <class T>
struct View {
  T* data = nullptr;
  Extent extent{};

  constexpr Index rows() const { return extent.rows(); }
  constexpr Index cols() const { return extent.cols(); }
  constexpr Index count() const { return extent.count(); }
  constexpr T* row(Index i) const { return data + i * cols(); }
  constexpr explicit operator bool() const { return data != nullptr && count() > 0; }
  /// Its first rows, as a matrix.
  constexpr View first(Index n) const { return {data, {n, cols()}}; }
  constexpr View<const T> readable() const { return {data, extent}; }
  // A template that only non-const views have: nvcc warns about a constrained conversion operator.
  template <class U, class = std::enable_if_t<std::is_same_v<U, const T> && !std::is_const_v<T>>>
  constexpr operator View<U>() const {
    return {data, extent};
  }
};

/// Operands: what an operation reads, what it writes.
template <class T>
using In = View<const T>;
template <class T>
using Out = View<T>;

/// Tensors that lie one after the other in memory, seen as one with all their rows: q, k, v or gate, up.
/// Absent when the first is. Throws when they do not touch: that is a mistake in the caller's layout.
template <class T, class... Rest>
View<T> joined(View<T> first, const Rest&... rest) {
  View<T> all = first;
  const auto append = [&](const View<T>& next) {
    if (next.data != all.data + all.count())
      throw ConfigurationError(
          {.what = "Tensors that are multiplied as one must lie one after the other in memory"});
    all.extent.dims[0] += next.extent[0];
  };
  if (first.data != nullptr) (append(rest), ...);
  return all;
}

}  // namespace parscale
