/// The innermost loop of every larger product: a few rows of the result stay in registers while it runs.
#pragma once

#include <algorithm>
#include <cstring>

#include "../../core/tensor.hpp"
#include "simd.hpp"

namespace parscale::cpu {

/// A matrix inside a larger row-major one: row i begins at data + i * stride.
template <class T>
struct Block {
  T* data;
  Index rows, cols, stride;

  T* row(Index i) const { return data + i * stride; }
  operator Block<const T>() const { return {data, rows, cols, stride}; }
};

/// A matrix to read, seen through steps: element (i, j) is data[i * row_step + j * col_step].
template <class T>
struct Strided {
  const T* data;
  Index rows, cols, row_step, col_step;

  explicit Strided(View<const T> v) : Strided(v.data, v.rows(), v.cols(), v.cols(), 1) {}
  Strided(const T* first, Index m, Index n, Index row, Index col)
      : data(first), rows(m), cols(n), row_step(row), col_step(col) {}

  Strided transposed() const { return {data, cols, rows, col_step, row_step}; }
  Strided part(Index row, Index row_count, Index col, Index col_count) const {
    return {data + row * row_step + col * col_step, row_count, col_count, row_step, col_step};
  }
};

/// A place in a matrix whose next row, or next column, is `stride` elements away.
template <class T>
struct At {
  T* data;
  Index stride;
};

/// What a product is added to: a matrix (the result itself, or another), one row for all (stride 0),
/// nothing.
template <class T>
struct Base {
  const T* data = nullptr;
  Index stride = 0;
};

/// How the left operand of a product lies in memory: its rows or its columns are contiguous.
enum class Left { by_rows, by_columns };

template <class T>
struct Kernel {
  using V = Simd<T>;
  using Vector = typename V::Vector;
  static constexpr int vectors = 2;
  /// Rows and columns of the result that fill the registers.
  static constexpr int rows = V::registers >= 32 ? 12 : 6, cols = vectors * V::width;
  static constexpr T zeros[cols] = {};
  /// As a base: nothing.
  static constexpr At<const T> nothing{zeros, 0};

  /// c = base + a b for m rows and n <= cols columns. The rows of b must be readable up to cols. Every
  /// element is summed up in the same order whatever m and n are. Not inline: a call costs nothing beside the
  /// loop, but each copy of the loop takes long to compile.
  template <Left left>
  [[gnu::noinline]] static void run(Index m, Index n, Index inner, At<const T> a, At<const T> b,
                                    At<const T> base, At<T> c) {
    const auto down = [&](Index i) {
      a.data += left == Left::by_rows ? i * a.stride : i;
      base.data += i * base.stride;
      c.data += i * c.stride;
    };
    for (; m >= rows; m -= rows, down(rows)) some_rows<left, rows>(n, inner, a, b, base, c);
    for (; m >= 4; m -= 4, down(4)) some_rows<left, 4>(n, inner, a, b, base, c);
    for (; m >= 2; m -= 2, down(2)) some_rows<left, 2>(n, inner, a, b, base, c);
    for (; m >= 1; m -= 1, down(1)) some_rows<left, 1>(n, inner, a, b, base, c);
  }

 private:
  template <Left left, int R>
  static void some_rows(Index n, Index inner, At<const T> a, At<const T> b, At<const T> base, At<T> c) {
#if defined(__clang__)
#pragma clang fp contract(fast)
#endif
    for (int i = 0; i < R; ++i)
      for (int j = 0; j < vectors; ++j) __builtin_prefetch(c.data + i * c.stride + j * V::width, 1);
    Vector sum[R][vectors] = {};
    for (Index k = 0; k < inner; ++k, b.data += b.stride) {
      Vector right[vectors];
      for (int j = 0; j < vectors; ++j) right[j] = V::load(b.data + j * V::width);
      for (int i = 0; i < R; ++i) {
        const T factor = left == Left::by_rows ? a.data[i * a.stride] : a.data[i];
        for (int j = 0; j < vectors; ++j) sum[i][j] += factor * right[j];
      }
      a.data += left == Left::by_rows ? 1 : a.stride;
    }
    if (n == cols) {
      for (int i = 0; i < R; ++i)
        for (int j = 0; j < vectors; ++j)
          V::store(V::load(base.data + i * base.stride + j * V::width) + sum[i][j],
                   c.data + i * c.stride + j * V::width);
    } else {
      T all[R][cols];
      for (int i = 0; i < R; ++i)
        for (int j = 0; j < vectors; ++j) V::store(sum[i][j], all[i] + j * V::width);
      for (int i = 0; i < R; ++i)
        for (Index j = 0; j < n; ++j) c.data[i * c.stride + j] = base.data[i * base.stride + j] + all[i][j];
    }
  }
};

inline Index pieces(Index count, Index size) { return (count + size - 1) / size; }

/// Copies the rows [begin * width, end * width) of `m` into panels [m.cols, width]; rows beyond the last are
/// zeros. Not inline, as Kernel::run.
template <Index width, class T>
[[gnu::noinline]] void pack_panels(const Strided<T>& m, T* panels, Index begin, Index end) {
  const Index whole = std::min(end, m.rows / width), size = width * m.cols;
  if (m.row_step == 1) {  // along the memory: all panels of one column together
    for (Index k = 0; k < m.cols; ++k)
      for (Index p = begin; p < whole; ++p)
        std::memcpy(panels + p * size + k * width, m.data + k * m.col_step + p * width, width * sizeof(T));
  } else {
    for (Index p = begin; p < whole; ++p)
      for (Index k = 0; k < m.cols; ++k)
        for (Index i = 0; i < width; ++i)
          panels[p * size + k * width + i] = m.data[(p * width + i) * m.row_step + k * m.col_step];
  }
  if (whole == end) return;
  std::fill_n(panels + whole * size, size, T(0));
  for (Index k = 0; k < m.cols; ++k)
    for (Index i = 0; i < m.rows - whole * width; ++i)
      panels[whole * size + k * width + i] = m.data[(whole * width + i) * m.row_step + k * m.col_step];
}

/// Elements of the panels that hold `count` rows (or columns) of `inner` elements.
template <Index width>
constexpr Index panels_size(Index count, Index inner) {
  return (count + width - 1) / width * width * inner;
}

/// c += a b by one thread, b as it lies in memory. `panel` has room for `inner` rows of Kernel::cols.
template <Left left, class T>
void add_product(Index m, Index n, Index inner, At<const T> a, At<const T> b, At<T> c, T* panel) {
  using K = Kernel<T>;
  if (inner == 0) return;  // a and b may be null then
  for (Index j = 0; j < n; j += K::cols) {
    const At<T> to{c.data + j, c.stride};
    At<const T> right{b.data + j, b.stride};
    if (n - j < K::cols) {  // the kernel would read beyond the last column
      std::fill_n(panel, inner * K::cols, T(0));
      for (Index k = 0; k < inner; ++k)
        std::copy_n(right.data + k * right.stride, n - j, panel + k * K::cols);
      right = {panel, K::cols};
    }
    K::template run<left>(m, std::min<Index>(n - j, K::cols), inner, a, right, {to.data, to.stride}, to);
  }
}

}  // namespace parscale::cpu
