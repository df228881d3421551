/// The gated MLP's linear layers with its activation: fused where a kernel of ours takes them, else a product
/// by cuBLASLt and a pass of its own. Both round at the same places.
#pragma once

#include "gated_linear_backward_hopper.cuh"
#include "gated_linear_hopper.cuh"
#include "linear.hpp"

namespace parscale::cuda {

template <class S>
void gated_linear(const Launch& on, Products& products, const op::GatedLinear<S>& a) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    if (gated_linear_hopper_takes(on, a)) return gated_linear_hopper(on, a);
  }
  linear<S>(on, products, {.x = a.x, .weight = a.weight, .out = a.gate_up});
  gated_mlp<S>(on, {.gate_up = a.gate_up, .product = a.product});
}

template <class S>
void gated_linear_backward(const Launch& on, Products& products, const op::GatedLinearBackward<S>& a) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    if (gated_linear_backward_hopper_takes(on, a)) return gated_linear_backward_hopper(on, a);
  }
  linear_input_gradient<S>(on, products, {.d_out = a.d_out, .weight = a.weight, .d_x = a.product});
  gated_mlp_backward<S>(on, {.gate_up = a.gate_up, .product = a.product});
}

}  // namespace parscale::cuda
