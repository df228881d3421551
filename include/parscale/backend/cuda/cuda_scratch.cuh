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

template <class S>
std::size_t CudaBackend<S>::scratch_bytes(const Shape& shape, const Layout& layout, int head_dim) const {
  const cuda::Launch on = state_->device.launch(stream(), state_->scratch);
  const Index rows = layout.rows(), hidden = shape.hidden, heads = shape.heads;
  const Index prefix = layout.replicas > 1 ? shape.prefix_tokens : 0;
  const Index widest = std::max({(heads + 2 * shape.kv_heads) * head_dim, 2 * shape.intermediate, hidden});
  const auto floats = [](Index count) { return static_cast<std::size_t>(count) * sizeof(float); };
  const std::size_t largest =
      std::max({floats(cuda::attend_scratch(on, layout, heads, head_dim, false)),
                floats(cuda::attend_backward_scratch(layout, heads, shape.kv_heads, head_dim, prefix)),
                floats(cuda::attend_replicas_backward_scratch(layout, heads)),
                cuda::head_loss_scratch<S>(layout.positions(), shape.vocabulary),
                cuda::rms_norm_backward_scratch(on, rows, hidden), cuda::column_sums_scratch(rows, widest),
                cuda::embed_backward_scratch(layout.positions(), rows, hidden)});
  const std::size_t turns = static_cast<std::size_t>(layout.tokens * head_dim / 2) * sizeof(float2);
  const Index copied = hidden % 8 == 0 ? 0 : 2 * layout.replicas * shape.kv_heads * prefix * head_dim;
  return largest + turns + static_cast<std::size_t>(copied) * sizeof(S) + state_->products.bytes();
}

}  // namespace parscale
