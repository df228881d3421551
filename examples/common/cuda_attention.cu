// The CUDA backend's attention forward, compiled once for all architectures.
#include <parscale/backend/cuda/cuda_attention.cuh>

namespace parscale {

template void CudaBackend<BFloat16>::attend_heads(int, int, const op::Attend<BFloat16, float>&);

template void CudaBackend<float>::attend_heads(int, int, const op::Attend<float, float>&);

}  // namespace parscale
