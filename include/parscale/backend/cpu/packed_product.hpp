/// Large matrix products by all threads: the right operand is copied into panels that the innermost loop
/// reads in order (the left one too where its rows are not contiguous), then a fixed grid of tiles is
/// computed. Every element is summed up in the same order whatever the tiles, the other rows and the number
/// of threads.
#pragma once

#include <algorithm>

#include "kernel.hpp"
#include "memory.hpp"
#include "threads.hpp"

namespace parscale::cpu {

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
    const Index left_size = packs_a_ ? panels_size<K::rows>(std::min(row_block, c.rows), inner_block) : 0;
    left_ = scratch.take<T>(left_size + panels_size<K::cols>(std::min(col_block, c.cols), inner_block));
    right_ = left_ + left_size;
  }

  void run() {
    const Index steps = std::max<Index>(1, pieces(a_.cols, inner_block)), step = pieces(a_.cols, steps);
    for (Index row = 0; row < c_.rows; row += row_block)
      for (Index col = 0; col < c_.cols; col += col_block)
        for (Index k = 0; k < steps; ++k)
          add_block({row, std::min(row_block, c_.rows - row), col, std::min(col_block, c_.cols - col),
                     k * step, std::min(step, a_.cols - k * step)});
  }

 private:
  using K = Kernel<T>;
  /// Panels that one task copies: about as many rows of either operand.
  static constexpr Index left_share = 8, right_share = std::max(1, 8 * K::rows / K::cols);
  struct Range {
    Index row, rows, col, cols, inner, depth;
  };

  void add_block(const Range& r) {
    const Index left = pieces(r.rows, K::rows), right = pieces(r.cols, K::cols);
    const Index left_tasks = packs_a_ ? pieces(left, left_share) : 0;
    threads_.run(left_tasks + pieces(right, right_share), [&](Index task, int) {
      if (task < left_tasks) {
        const Index panel = task * left_share;
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

  /// The panels [left, left_end) x [right, right_end) of the result.
  void tile(const Range& r, Index left, Index left_end, Index right, Index right_end) {
    const Index first = left * K::rows, end = std::min(r.rows, left_end * K::rows);
    for (Index j = right; j < right_end; ++j)
      if (packs_a_)
        for (Index i = first; i < end; i += K::rows)
          panel<Left::by_columns>(r, i, std::min<Index>(K::rows, end - i), j, {left_ + i * r.depth, K::rows});
      else
        panel<Left::by_rows>(r, first, end - first, j,
                             {a_.data + (r.row + first) * a_.row_step + r.inner, a_.row_step});
  }

  /// m rows of the result from `first`, one panel of columns.
  template <Left left>
  void panel(const Range& r, Index first, Index m, Index j, At<const T> a) {
    const Index row = r.row + first, col = r.col + j * K::cols;
    const At<T> c{c_.row(row) + col, c_.stride};
    const At<const T> base = r.inner > 0 ? At<const T>{c.data, c.stride} : begin(row, col);
    K::template run<left>(m, std::min<Index>(K::cols, r.col + r.cols - col), r.depth, a,
                          {right_ + j * K::cols * r.depth, K::cols}, base, c);
  }

  /// Where sums start from.
  At<const T> begin(Index row, Index col) const {
    if (base_.data == nullptr) return K::nothing;
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
