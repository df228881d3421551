// What the CUDA backend holds, compiled once for all architectures.
#include <parscale/backend/cuda/cuda_scratch.cuh>

namespace parscale {

template std::size_t CudaBackend<BFloat16>::scratch_bytes(const Shape&, const Layout&, int) const;

template std::size_t CudaBackend<float>::scratch_bytes(const Shape&, const Layout&, int) const;

}  // namespace parscale
