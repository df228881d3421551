// The CUDA backend's attention backward, compiled once for all architectures.
#include <parscale/backend/cuda/cuda_attention_backward.cuh>

namespace parscale {

template void CudaBackend<BFloat16>::attend_heads_backward(int, int,
                                                           const op::AttendBackward<BFloat16, float>&);

template void CudaBackend<float>::attend_heads_backward(int, int, const op::AttendBackward<float, float>&);

}  // namespace parscale
