/// A GPU on paper, for plans where there is none.
#pragma once

#include <cstddef>
#include <parscale/backend/operands.hpp>
#include <parscale/config.hpp>

namespace parscale::program {

/// What the CUDA backend on an H100 comes to hold for itself; as CudaBackend<S>::scratch_bytes.
template <class S>
struct PlannedGpu {
  std::size_t scratch_bytes(const Shape& shape, const Layout& layout, int head_dim) const;
};

}  // namespace parscale::program
