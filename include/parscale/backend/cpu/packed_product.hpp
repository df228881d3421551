/// Large matrix products by all threads: both operands are copied into panels that the innermost loop reads
/// in order, then a fixed grid of tiles is computed from them. Every element is summed up in the same order
/// whatever the tiles, the other rows and the number of threads.
#pragma once

#include <algorithm>
#include <cstring>

#include "../../core/tensor.hpp"
#include "memory.hpp"
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

/// The registers' shape: the innermost loop keeps kernel_rows x vectors of the result in registers.
#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64, kernel_rows = 12;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32, kernel_rows = 6;
#else
inline constexpr int vector_bytes = 16, kernel_rows = 6;
#endif
template <class T>
struct Kernel {
  typedef T Vector __attribute__((vector_size(vector_bytes)));
  static constexpr int width = vector_bytes / sizeof(T), vectors = 2;
  static constexpr int rows = kernel_rows, cols = vectors * width;

  /// c[0,m) x [0,n) += a b from one panel each, m <= rows, n <= cols.
  static void run(Index inner, const T* a, const T* b, T* c, Index stride, Index m, Index n) {
#if defined(__clang__)
#pragma clang fp contract(fast)
#endif
    Vector sum[rows][vectors] = {};
    for (Index k = 0; k < inner; ++k, a += rows, b += cols) {
      Vector right[vectors];
      for (int j = 0; j < vectors; ++j) right[j] = load(b + j * width);
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < vectors; ++j) sum[i][j] += a[i] * right[j];
    }
    if (m == rows && n == cols) {
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < vectors; ++j) {
          T* at = c + i * stride + j * width;
          store(load(at) + sum[i][j], at);
        }
    } else {
      T all[rows][cols];
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < vectors; ++j) store(sum[i][j], all[i] + j * width);
      for (Index i = 0; i < m; ++i)
        for (Index j = 0; j < n; ++j) c[i * stride + j] += all[i][j];
    }
  }

 private:
  // One vector at a time: larger copies would keep the sums in memory.
  static Vector load(const T* from) {
    Vector v;
    std::memcpy(&v, from, sizeof(v));
    return v;
  }
  static void store(const Vector& v, T* to) { std::memcpy(to, &v, sizeof(v)); }
};

/// Copies `width` neighbouring rows of `m` (the rest are zeros) into a panel [m.cols, width].
template <Index width, class T>
void pack_panel(const Strided<T>& m, T* panel) {
  if (m.rows < width) std::fill_n(panel, m.cols * width, T(0));
  for (Index k = 0; k < m.cols; ++k, panel += width) {
    const T* column = m.data + k * m.col_step;
    if (m.rows == width && m.row_step == 1)
      std::memcpy(panel, column, width * sizeof(T));
    else if (m.rows == width)
      for (Index i = 0; i < width; ++i) panel[i] = column[i * m.row_step];
    else
      for (Index i = 0; i < m.rows; ++i) panel[i] = column[i * m.row_step];
  }
}

inline Index pieces(Index count, Index size) { return (count + size - 1) / size; }

/// c = begin + a b, where begin_tile(row, rows, col, cols) writes the beginning of a tile of c.
template <class T, class Begin>
class PackedProduct {
 public:
  static constexpr Index inner_block = 256, row_block = 4096, col_block = 2048;
  static constexpr Index scratch_size = inner_block * (row_block + col_block + kernel_rows + Kernel<T>::cols);

  PackedProduct(Threads& threads, Scratch& scratch, Strided<T> a, Strided<T> b, Block<T> c, Begin begin_tile)
      : threads_(threads), a_(a), b_(b.transposed()), c_(c), begin_tile_(begin_tile) {
    left_ = scratch.take<T>(scratch_size);
    right_ = left_ + inner_block * (row_block + kernel_rows);
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
  struct Range {
    Index row, rows, col, cols, inner, depth;
  };

  void add_block(const Range& r) {
    const Index left = pieces(r.rows, K::rows), right = pieces(r.cols, K::cols);
    const Strided<T> a = a_.part(r.row, r.rows, r.inner, r.depth), b = b_.part(r.col, r.cols, r.inner, r.depth);
    constexpr Index share = 8;  // panels that one task copies
    threads_.run(pieces(left, share) + pieces(right, share), [&](Index task, int) {
      const Index lefts = pieces(left, share);
      if (task < lefts)
        pack<K::rows>(a, left_, task * share, std::min(left, (task + 1) * share));
      else
        pack<K::cols>(b, right_, (task - lefts) * share, std::min(right, (task - lefts + 1) * share));
    });
    // Tiles of panels: enough of them for many threads, large enough to read each panel from near memory.
    const Index down = tile_panels(left, 11), across = tile_panels(right, 16);
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

  template <Index width>
  static void pack(const Strided<T>& m, T* panels, Index begin, Index end) {
    for (Index p = begin; p < end; ++p)
      pack_panel<width>(m.part(p * width, std::min(width, m.rows - p * width), 0, m.cols), panels + p * width * m.cols);
  }

  void tile(const Range& r, Index left, Index left_end, Index right, Index right_end) {
    const Index row = left * K::rows, row_end = std::min(r.rows, left_end * K::rows);
    const Index col = right * K::cols, col_end = std::min(r.cols, right_end * K::cols);
    if (r.inner == 0) begin_tile_(r.row + row, row_end - row, r.col + col, col_end - col);
    for (Index j = right; j < right_end; ++j)
      for (Index i = left; i < left_end; ++i)
        K::run(r.depth, left_ + i * K::rows * r.depth, right_ + j * K::cols * r.depth,
               c_.row(r.row + i * K::rows) + r.col + j * K::cols, c_.stride, std::min<Index>(K::rows, r.rows - i * K::rows),
               std::min<Index>(K::cols, r.cols - j * K::cols));
  }

  Threads& threads_;
  Strided<T> a_, b_;  ///< b is kept transposed: both are packed by rows
  Block<T> c_;
  Begin begin_tile_;
  T *left_, *right_;
};

}  // namespace parscale::cpu
