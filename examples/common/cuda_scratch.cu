// What the CUDA backend holds, compiled once for all architectures.
#include <parscale/backend/cuda/cuda_scratch.cuh>

#include "planned_gpu.hpp"

namespace parscale {

template std::size_t CudaBackend<BFloat16>::scratch_bytes(const Shape&, const Layout&, int) const;

template std::size_t CudaBackend<float>::scratch_bytes(const Shape&, const Layout&, int) const;

namespace program {

template <class S>
std::size_t PlannedGpu<S>::scratch_bytes(const Shape& shape, const Layout& layout, int head_dim) const {
  cuda::Scratch none;
  const cuda::Launch h100{
      .stream = nullptr, .scratch = none, .multiprocessors = 132, .compute_capability = 90};
  return cuda::operations_bytes<S>(h100, shape, layout, head_dim) + cuda::ProductOptions().workspace;
}

template struct PlannedGpu<BFloat16>;
template struct PlannedGpu<float>;

}  // namespace program
}  // namespace parscale
