/// Products with few rows, as in decoding: bound by reading the weights, which are read once for all rows.
#pragma once

#include <algorithm>

#include "packed_product.hpp"

namespace parscale::cpu {

/// Up to this many rows, packing the weights would cost more than it saves.
inline constexpr Index few_rows = 16;

/// sums[r][c] = dot(x row r, w row c) over `inner` features.
template <int R, int C, class T>
void dots(Index inner, const T* const (&x)[R], const T* const (&w)[C], T (&sums)[R][C]) {
#if defined(__clang__)
#pragma clang fp contract(fast)
#endif
  using V = Simd<T>;
  typename V::Vector part[R][C] = {};
  Index k = 0;
  for (; k + V::width <= inner; k += V::width) {
    typename V::Vector right[C];
    for (int c = 0; c < C; ++c) right[c] = V::load(w[c] + k);
    for (int r = 0; r < R; ++r) {
      const typename V::Vector left = V::load(x[r] + k);
      for (int c = 0; c < C; ++c) part[r][c] += left * right[c];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) {
      T each[V::width], total = 0;
      V::store(part[r][c], each);
      for (int i = 0; i < V::width; ++i) total += each[i];
      for (Index i = k; i < inner; ++i) total += x[r][i] * w[c][i];
      sums[r][c] = total;
    }
}

/// c = base + a w^T for a few rows of a; one task is a range of c's columns.
template <class T>
class FewRowsProduct {
 public:
  FewRowsProduct(Block<const T> a, Block<const T> w, Base<T> base, Block<T> c)
      : a_(a), w_(w), base_(base), c_(c) {}

  void run(Threads& threads) {
    const Index grain = std::max<Index>(1, 4096 / (w_.cols + 1)) * columns;  // about 64 KiB of weights
    threads.run_chunks(w_.rows, grain, [&](Index begin, Index end) {
      for (Index col = begin; col < end; col += columns) {
        Index row = 0;
        for (; row + 4 <= a_.rows; row += 4) block<4>(row, col, end);
        for (; row < a_.rows; ++row) block<1>(row, col, end);
      }
    });
  }

 private:
  static constexpr int columns = 4;

  template <int R>
  void block(Index row, Index col, Index end) {
    const T *x[R], *w[columns];
    T sums[R][columns];
    for (int r = 0; r < R; ++r) x[r] = a_.row(row + r);
    for (int c = 0; c < columns; ++c) w[c] = w_.row(std::min(col + c, end - 1));
    dots<R, columns>(a_.cols, x, w, sums);
    for (int r = 0; r < R; ++r)
      for (Index c = 0; c < std::min<Index>(columns, end - col); ++c)
        c_.row(row + r)[col + c] =
            sums[r][c] + (base_.data != nullptr ? base_.data[(row + r) * base_.stride + col + c] : T(0));
  }

  Block<const T> a_, w_;
  Base<T> base_;
  Block<T> c_;
};

}  // namespace parscale::cpu
