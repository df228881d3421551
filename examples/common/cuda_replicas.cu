// The CUDA backend's attention among replicas, compiled once for all architectures.
#include <parscale/backend/cuda/cuda_replicas.cuh>

namespace parscale {

template void CudaBackend<BFloat16>::attend_heads_of_replicas(int, int, const op::AttendReplicas<BFloat16>&);
template void CudaBackend<BFloat16>::attend_heads_of_replicas_backward(
    int, int, const op::AttendReplicasBackward<BFloat16>&);

template void CudaBackend<float>::attend_heads_of_replicas(int, int, const op::AttendReplicas<float>&);
template void CudaBackend<float>::attend_heads_of_replicas_backward(int, int,
                                                                    const op::AttendReplicasBackward<float>&);

}  // namespace parscale
