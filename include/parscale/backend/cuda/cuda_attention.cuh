/// The CUDA backend's attention forward: checked, then launched.
#pragma once

#include "../checks.hpp"
#include "aligned_prefix.cuh"
#include "attention.cuh"
#include "cuda.hpp"

namespace parscale {

template <class S>
void CudaBackend<S>::attend_heads(int D, int P, const op::Attend<S, float>& a) {
  check("attend", D, P, a);
  cuda::attend<S>(launch(), D, P, cuda::with_aligned_prefix(launch(), state_->aligned_prefix, a));
}

}  // namespace parscale
