/// The CUDA backend's attention forward: checked, then launched.
#pragma once

#include "../checks.hpp"
#include "attention.cuh"
#include "cuda.hpp"

namespace parscale {

template <class S>
void CudaBackend<S>::attend_heads(int D, int P, const op::Attend<S, float>& a) {
  check("attend", D, P, a);
  cuda::check_alignment(a.prefix_k.data, a.prefix_v.data);
  cuda::attend<S>(launch(), D, P, a);
}

}  // namespace parscale
