/// The large products of the linear layers: by the library's own kernel, or, when a build asks for it with
/// PARSCALE_USE_BLAS, by Eigen, whose products then go through that BLAS, one tile a thread.
#pragma once

#include "packed_product.hpp"

#if defined(PARSCALE_USE_BLAS)
#include "eigen_product.hpp"
#endif

namespace parscale::cpu {

/// c = base + a b
template <class T>
void product(Threads& threads, Scratch& panels, Strided<T> a, Strided<T> b, Base<T> base, Block<T> c) {
#if defined(PARSCALE_USE_BLAS)
  (void)panels;
  eigen_product(threads, a, b, base, c);
#else
  PackedProduct<T>(threads, panels, a, b, base, c).run();
#endif
}

/// A BLAS must not start threads of its own: ours own the tiles, whatever their number.
inline void keep_blas_on_one_thread() {
#if defined(PARSCALE_USE_BLAS)
  openblas_set_num_threads(1);
#endif
}

}  // namespace parscale::cpu
