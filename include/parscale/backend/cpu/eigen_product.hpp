/// Large products through Eigen, tile by tile. The only header that includes Eigen; no Eigen type leaves it.
#pragma once

// Our threads own the tiles: Eigen's own would change results with their number.
#if !defined(EIGEN_DONT_PARALLELIZE)
#define EIGEN_DONT_PARALLELIZE
#endif
// g++ 12 takes the placeholder operands of its own AVX-512 intrinsics for uninitialised variables.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <algorithm>

#include "kernel.hpp"
#include "threads.hpp"

extern "C" void openblas_set_num_threads(int threads);

namespace parscale::cpu {

template <class T, int order>
using EigenMatrix =
    Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, order>, 0, Eigen::OuterStride<>>;

/// f(the matrix as Eigen sees it): by rows or by columns, whichever is contiguous.
template <class T, class F>
void as_eigen(const Strided<T>& m, F f) {
  if (m.col_step == 1)
    f(EigenMatrix<T, Eigen::RowMajor>(m.data, m.rows, m.cols, Eigen::OuterStride<>(m.row_step)));
  else
    f(EigenMatrix<T, Eigen::ColMajor>(m.data, m.rows, m.cols, Eigen::OuterStride<>(m.col_step)));
}

/// c = base + a b over a fixed grid of tiles.
template <class T>
void eigen_product(Threads& threads, const Strided<T>& a, const Strided<T>& b, Base<T> base, Block<T> c) {
  constexpr Index tile = 512;
  const Index across = pieces(c.cols, tile);
  threads.run(pieces(c.rows, tile) * across, [&](Index task, int) {
    const Index row = task / across * tile, col = task % across * tile;
    const Index rows = std::min(tile, c.rows - row), cols = std::min(tile, c.cols - col);
    for (Index i = 0; i < rows && base.data != c.data; ++i) {
      T* out = c.row(row + i) + col;
      if (base.data == nullptr)
        std::fill_n(out, cols, T(0));
      else
        std::copy_n(base.data + (row + i) * base.stride + col, cols, out);
    }
    using Result = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<Result, 0, Eigen::OuterStride<>> out(c.row(row) + col, rows, cols,
                                                    Eigen::OuterStride<>(c.stride));
    as_eigen(a.part(row, rows, 0, a.cols), [&](const auto& left) {
      as_eigen(b.part(0, b.rows, col, cols), [&](const auto& right) { out.noalias() += left * right; });
    });
  });
}

}  // namespace parscale::cpu
