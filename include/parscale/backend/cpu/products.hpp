/// What Eigen does here: small matrix products of one thread, and square roots that vectorise. The only
/// header that includes Eigen; no Eigen type leaves it.
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

#if defined(PARSCALE_USE_BLAS)
extern "C" void openblas_set_num_threads(int threads);
#endif

#include "packed_product.hpp"

namespace parscale::cpu {

/// Small products run inside our threads: a BLAS behind Eigen must not start its own for them.
inline void keep_blas_on_one_thread() {
#if defined(PARSCALE_USE_BLAS)
  openblas_set_num_threads(1);
#endif
}

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
auto map(const Block<const T>& b) {
  return Eigen::Map<const RowMajor<T>, 0, Eigen::OuterStride<>>(b.data, b.rows, b.cols,
                                                                Eigen::OuterStride<>(b.stride));
}
template <class T>
auto map(const Block<T>& b) {
  return Eigen::Map<RowMajor<T>, 0, Eigen::OuterStride<>>(b.data, b.rows, b.cols,
                                                          Eigen::OuterStride<>(b.stride));
}

/// c += scale a b
template <class T>
void add_product(Block<const T> a, Block<const T> b, Block<T> c, T scale) {
  map(c).noalias() += scale * (map<T>(a) * map<T>(b));
}
/// c += scale a b^T
template <class T>
void add_product_nt(Block<const T> a, Block<const T> b, Block<T> c, T scale) {
  map(c).noalias() += scale * (map<T>(a) * map<T>(b).transpose());
}
/// c += scale a^T b
template <class T>
void add_product_tn(Block<const T> a, Block<const T> b, Block<T> c, T scale) {
  map(c).noalias() += scale * (map<T>(a).transpose() * map<T>(b));
}

/// Square roots of a fixed number of values: one path through the registers whatever lies behind them.
inline constexpr Index root_chunk = 256;
template <class T>
void square_roots(T (&values)[root_chunk]) {
  Eigen::Map<Eigen::Array<T, root_chunk, 1>> all(values);
  all = all.sqrt();
}

}  // namespace parscale::cpu
