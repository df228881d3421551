/// How much arithmetic training takes, for model FLOPs utilisation (MFU, arXiv 2204.02311, appendix B).
#pragma once

#include "../config.hpp"

namespace parscale {

/// Floating-point operations of forward and backward for one token of text in rows of `tokens`: every matrix
/// product once forward and twice backward, causal attention as the half that is seen, nothing computed
/// twice.
inline double flops_a_token(const Architecture& given, const Shape& shape, Index tokens) {
  const Architecture arch = canonical(given);
  const auto real = [](Index n) { return static_cast<double>(n); };
  const double h = real(shape.hidden), q = real(shape.heads * arch.head_dim), p = arch.replicas;
  const double qkv = h * (q + 2 * real(shape.kv_heads * arch.head_dim));
  const double layer = qkv + q * h + 3 * h * real(shape.intermediate);
  const double seen = real(tokens) / 2 + real(prefix_tokens(arch, shape));
  const auto crossing = arch.cross_layers == LayerSet::every()
                            ? real(shape.layers)
                            : real(static_cast<Index>(shape.cross_layers.size()));
  double stream = real(shape.layers) * (layer + 2 * q * seen);
  if (arch.cross_attention == CrossAttention::sublayer) stream += crossing * (qkv + q * h);
  if (arch.cross_attention == CrossAttention::expanded) stream += crossing * (p - 1) * q * h;
  const double once = real(shape.vocabulary) * h + (arch.replicas > 1 ? p * h * h + h * p : 0);
  return 6 * (p * stream + once);
}

}  // namespace parscale
