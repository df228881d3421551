/// What the CUDA backend comes to hold besides what a model asks it for.
#pragma once

#include <algorithm>

#include "attend_replicas.cuh"
#include "attention.cuh"
#include "attention_backward.cuh"
#include "cuda.hpp"
#include "embedding.cuh"
#include "head_loss.cuh"
#include "rms_norm.cuh"

namespace parscale {
namespace cuda {

/// Of the operations, on a device as `on` describes it: the one that takes most, and the tables of angles.
template <class S>
std::size_t operations_bytes(const Launch& on, const Shape& shape, const Layout& layout, int head_dim) {
  const Index rows = layout.rows(), hidden = shape.hidden, heads = shape.heads;
  const Index prefix = layout.replicas > 1 ? shape.prefix_tokens : 0;
  const Index widest = std::max({(heads + 2 * shape.kv_heads) * head_dim, 2 * shape.intermediate, hidden});
  const auto floats = [](Index count) { return static_cast<std::size_t>(count) * sizeof(float); };
  const std::size_t largest =
      std::max({floats(attend_scratch(on, layout, heads, head_dim, false)),
                floats(attend_backward_scratch(layout, heads, shape.kv_heads, head_dim, prefix)),
                floats(attend_replicas_backward_scratch(layout, heads)),
                head_loss_scratch<S>(layout.positions(), shape.vocabulary),
                rms_norm_backward_scratch(on, rows, hidden), column_sums_scratch(rows, widest),
                embed_backward_scratch(layout.positions(), rows, hidden)});
  const std::size_t turns = static_cast<std::size_t>(layout.tokens * head_dim / 2) * sizeof(float2);
  const Index copied = hidden % 8 == 0 ? 0 : 2 * layout.replicas * shape.kv_heads * prefix * head_dim;
  return largest + turns + static_cast<std::size_t>(copied) * sizeof(S);
}

}  // namespace cuda

template <class S>
std::size_t CudaBackend<S>::scratch_bytes(const Shape& shape, const Layout& layout, int head_dim) const {
  const cuda::Launch on = state_->device.launch(stream(), state_->scratch);
  return cuda::operations_bytes<S>(on, shape, layout, head_dim) + state_->products.bytes();
}

}  // namespace parscale
