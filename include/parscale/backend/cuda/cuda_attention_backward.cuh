/// The CUDA backend's attention backward: checked, then launched.
#pragma once

#include "../checks.hpp"
#include "aligned_prefix.cuh"
#include "attention_backward.cuh"
#include "cuda.hpp"

namespace parscale {

template <class S>
void CudaBackend<S>::attend_heads_backward(int D, int P, const op::AttendBackward<S, float>& a) {
  check("attend_backward", D, P, a);
  cuda::attend_backward<S>(launch(), state_->rotary, D, P,
                           cuda::with_aligned_prefix(launch(), state_->aligned_prefix, a));
}

}  // namespace parscale
