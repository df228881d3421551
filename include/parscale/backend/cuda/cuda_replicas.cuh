/// The CUDA backend's attention among replicas: checked, then launched.
#pragma once

#include "../checks.hpp"
#include "attend_replicas.cuh"
#include "cuda.hpp"

namespace parscale {

template <class S>
void CudaBackend<S>::attend_heads_of_replicas(int D, int P, const op::AttendReplicas<S>& a) {
  check(D, P, a);
  cuda::attend_replicas<S>(launch(), D, P, a);
}

template <class S>
void CudaBackend<S>::attend_heads_of_replicas_backward(int D, int P, const op::AttendReplicasBackward<S>& a) {
  check(D, P, a);
  cuda::attend_replicas_backward<S>(launch(), D, P, a);
}

}  // namespace parscale
