/// Products with few rows, as in decoding: bound by reading the weights, which are read once for all rows.
#pragma once

#include <algorithm>

#include "kernel.hpp"
#include "threads.hpp"

namespace parscale::cpu {

/// Up to this many rows, packing the weights would cost more than it saves.
inline constexpr Index few_rows = 16;

/// sums[r * C + c] = dot(x row r, w row c) over `inner` features, a register full of dots.
template <int R, int C, class T>
void dots(Index inner, const T* const (&x)[R], const T* const (&w)[C], T (&sums)[R * C]) {
#if defined(__clang__)
#pragma clang fp contract(fast)
#endif
  using V = Simd<T>;
  static_assert(R * C == V::width);
  typename V::Vector part[R * C] = {};
  Index k = 0;
  for (; k + V::width <= inner; k += V::width) {
    typename V::Vector left[R];
    for (int r = 0; r < R; ++r) left[r] = V::load(x[r] + k);
    for (int c = 0; c < C; ++c) {
      const typename V::Vector right = V::load(w[c] + k);
      for (int r = 0; r < R; ++r) part[r * C + c] += left[r] * right;
    }
  }
  V::store(V::sums(part), sums);
  for (; k < inner; ++k)
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) sums[r * C + c] += x[r][k] * w[c][k];
}

/// c = base + a w^T by one thread, for `rows` rows of a.
template <class T>
class FewRowsProduct {
 public:
  FewRowsProduct(Index rows, At<const T> a, Base<T> base, At<T> c) : rows_(rows), a_(a), base_(base), c_(c) {}

  /// The columns [begin, end) of c: so many rows of w.
  void run(const Block<const T>& w, Index begin, Index end) const {
    Index row = 0;
    for (; row + most_rows <= rows_; row += most_rows) strip<most_rows>(w, row, begin, end);
    for (; row + 2 <= rows_; row += 2) strip<2>(w, row, begin, end);
    for (; row < rows_; ++row) strip<1>(w, row, begin, end);
  }

 private:
  static constexpr int width = Simd<T>::width, most_rows = width < 4 ? 2 : 4;

  template <int R>
  void strip(const Block<const T>& w, Index row, Index begin, Index end) const {
    constexpr int columns = width / R;
    const T *x[R], *weights[columns];
    T sums[width];
    for (int r = 0; r < R; ++r) x[r] = a_.data + (row + r) * a_.stride;
    for (Index col = begin; col < end; col += columns) {
      for (int c = 0; c < columns; ++c) weights[c] = w.row(std::min(col + c, end - 1));
      dots<R, columns>(w.cols, x, weights, sums);
      for (int r = 0; r < R; ++r)
        for (Index c = 0; c < std::min<Index>(columns, end - col); ++c)
          c_.data[(row + r) * c_.stride + col + c] = sums[r * columns + c] + begin_at(row + r, col + c);
    }
  }
  T begin_at(Index row, Index col) const {
    return base_.data != nullptr ? base_.data[row * base_.stride + col] : T(0);
  }

  Index rows_;
  At<const T> a_;
  Base<T> base_;
  At<T> c_;
};

/// c = base + a w^T by all threads; one task is a range of c's columns.
template <class T>
void few_rows_product(Threads& threads, Block<const T> a, const Block<const T>& w, Base<T> base, Block<T> c) {
  const FewRowsProduct<T> product(a.rows, {a.data, a.stride}, base, {c.data, c.stride});
  const Index grain = pieces(16384, w.cols + 1);  // about 64 KiB of weights: later rows of a find them near
  threads.run_chunks(w.rows, pieces(grain, Simd<T>::width) * Simd<T>::width,
                     [&](Index begin, Index end) { product.run(w, begin, end); });
}

}  // namespace parscale::cpu
