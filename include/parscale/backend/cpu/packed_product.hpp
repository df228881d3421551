/// Large matrix products by all threads: both operands are copied into panels that the innermost loop reads
/// in order, then a fixed grid of tiles is computed from them. Every element is summed up in the same order
/// whatever the tiles, the other rows and the number of threads.
#pragma once

#include <algorithm>
#include <cstring>

#include "../../core/tensor.hpp"
#include "memory.hpp"
#include "simd.hpp"
#include "threads.hpp"

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

template <class T>
struct Kernel {
  using Vector = typename Simd<T>::Vector;
  static constexpr int width = Simd<T>::width, vectors = 2;
  static constexpr int rows = Simd<T>::registers >= 32 ? 12 : 6, cols = vectors * width;

  /// A place in a row-major matrix.
  template <class U>
  struct At {
    U* data;
    Index stride;
  };

  /// c = base + a b for [m,n] of at most [rows,cols]. `b` is a packed panel, `a` too, or lies in its rows.
  template <bool a_is_packed>
  static void run(Index inner, At<const T> a, const T* b, At<const T> base, At<T> c, Index m, Index n) {
#if defined(__clang__)
#pragma clang fp contract(fast)
#endif
    for (Index i = 0; i < m; ++i)
      for (int j = 0; j < vectors; ++j) __builtin_prefetch(c.data + i * c.stride + j * width, 1);
    Vector sum[rows][vectors] = {};
    for (Index k = 0; k < inner; ++k, b += cols) {
      Vector right[vectors];
      for (int j = 0; j < vectors; ++j) right[j] = Simd<T>::load(b + j * width);
      for (int i = 0; i < rows; ++i) {
        const T left = a_is_packed ? a.data[i] : a.data[i * a.stride];
        for (int j = 0; j < vectors; ++j) sum[i][j] += left * right[j];
      }
      a.data += a_is_packed ? rows : 1;
    }
    if (m == rows && n == cols) {
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < vectors; ++j)
          Simd<T>::store(Simd<T>::load(base.data + i * base.stride + j * width) + sum[i][j],
                         c.data + i * c.stride + j * width);
    } else {
      T all[rows][cols];
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < vectors; ++j) Simd<T>::store(sum[i][j], all[i] + j * width);
      for (Index i = 0; i < m; ++i)
        for (Index j = 0; j < n; ++j) c.data[i * c.stride + j] = base.data[i * base.stride + j] + all[i][j];
    }
  }
};

/// Copies the rows [begin * width, end * width) of `m` into panels [m.cols, width]; rows beyond the last are
/// zeros.
template <Index width, class T>
void pack_panels(const Strided<T>& m, T* panels, Index begin, Index end) {
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

inline Index pieces(Index count, Index size) { return (count + size - 1) / size; }

/// What a product is added to: a matrix (the result itself, or another), one row for all (stride 0), nothing.
template <class T>
struct Base {
  const T* data = nullptr;
  Index stride = 0;
};

/// c = base + a b
template <class T>
class PackedProduct {
 public:
  static constexpr Index inner_block = 512, row_block = 4096, col_block = 2048;
  /// The most that panels ever need.
  static constexpr Index scratch_size =
      inner_block * (row_block + Kernel<T>::rows + col_block + Kernel<T>::cols);

  PackedProduct(Threads& threads, Scratch& scratch, Strided<T> a, Strided<T> b, Base<T> base, Block<T> c)
      : threads_(threads), a_(a), b_(b.transposed()), base_(base), c_(c), packs_a_(a.col_step != 1) {
    const Index left_size = inner_block * (std::min(row_block, c.rows) + K::rows);
    left_ = scratch.take<T>(left_size + inner_block * (std::min(col_block, c.cols) + K::cols));
    right_ = left_ + left_size;
  }

  void run() {
    const Index step = pieces(a_.cols, pieces(a_.cols, inner_block));
    for (Index row = 0; row < c_.rows; row += row_block)
      for (Index col = 0; col < c_.cols; col += col_block)
        for (Index k = 0; k < a_.cols; k += step)
          add_block({row, std::min(row_block, c_.rows - row), col, std::min(col_block, c_.cols - col), k,
                     std::min(step, a_.cols - k)});
  }

 private:
  using K = Kernel<T>;
  using Place = typename K::template At<const T>;
  /// Panels that one task copies: about as many rows of either operand.
  static constexpr Index left_share = 8, right_share = std::max(1, 8 * K::rows / K::cols);
  struct Range {
    Index row, rows, col, cols, inner, depth;
  };

  void add_block(const Range& r) {
    const Index left = pieces(r.rows, K::rows), right = pieces(r.cols, K::cols);
    // Rows of a that the kernel can read where they are stay there, but for a last panel with rows missing.
    const Index first_left = packs_a_ ? 0 : r.rows / K::rows;
    const Index left_tasks = pieces(left - first_left, left_share);
    threads_.run(left_tasks + pieces(right, right_share), [&](Index task, int) {
      if (task < left_tasks) {
        const Index panel = first_left + task * left_share;
        pack_panels<K::rows>(a_.part(r.row, r.rows, r.inner, r.depth), left_, panel,
                             std::min(left, panel + left_share));
      } else {
        const Index panel = (task - left_tasks) * right_share;
        pack_panels<K::cols>(b_.part(r.col, r.cols, r.inner, r.depth), right_, panel,
                             std::min(right, panel + right_share));
      }
    });
    // Tiles of panels: enough of them for many threads, large enough to read each panel from near memory.
    const Index down = tile_panels(left, 22), across = tile_panels(right, 8);
    const Index tiles_across = pieces(right, across);
    threads_.run(pieces(left, down) * tiles_across, [&](Index task, int) {
      const Index i = task / tiles_across * down, j = task % tiles_across * across;
      tile(r, i, std::min(left, i + down), j, std::min(right, j + across));
    });
  }

  /// At most `most` panels a tile, at least four tiles where there are as many panels, of about equal size.
  static Index tile_panels(Index panels, Index most) {
    const Index tiles = std::max(pieces(panels, most), std::min<Index>(panels, 4));
    return pieces(panels, tiles);
  }

  void tile(const Range& r, Index left, Index left_end, Index right, Index right_end) {
    for (Index j = right; j < right_end; ++j)
      for (Index i = left; i < left_end; ++i) panels(r, i, j);
  }

  void panels(const Range& r, Index i, Index j) {
    const Index row = r.row + i * K::rows, col = r.col + j * K::cols;
    const Index m = std::min<Index>(K::rows, r.row + r.rows - row),
                n = std::min<Index>(K::cols, r.col + r.cols - col);
    const T* b = right_ + j * K::cols * r.depth;
    const typename K::template At<T> c{c_.row(row) + col, c_.stride};
    const Place base = r.inner > 0 ? Place{c.data, c.stride} : begin(row, col);
    if (packs_a_ || m < K::rows)
      K::template run<true>(r.depth, {left_ + i * K::rows * r.depth, 0}, b, base, c, m, n);
    else
      K::template run<false>(r.depth, {a_.data + row * a_.row_step + r.inner, a_.row_step}, b, base, c, m, n);
  }

  /// Where a panel's sums start from.
  Place begin(Index row, Index col) const {
    static constexpr T zeros[K::cols] = {};
    if (base_.data == nullptr) return {zeros, 0};
    return {base_.data + row * base_.stride + col, base_.stride};
  }

  Threads& threads_;
  Strided<T> a_, b_;  ///< b is kept transposed: both are packed by rows
  Base<T> base_;
  Block<T> c_;
  bool packs_a_;
  T *left_, *right_;
};

}  // namespace parscale::cpu
