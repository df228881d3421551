/// Several linear maps of one input, computed as one product: q, k, v or gate, up.
#pragma once

#include <array>

#include "context.hpp"

namespace parscale {

/// The gradient of one of the maps. `features` says how many columns of the product are its own, also when it
/// is frozen and has no gradient.
template <class B>
struct ProjectionGradient {
  Index features;
  Out<Wide<B>> weight, bias = {};
};

/// The weight gradients of maps that share x [M,K] and d_out [M, all features]: one product when every map is
/// trained (their gradients lie side by side, as the weights do), else one for each that is.
template <class B, std::size_t n>
void projection_gradients(Context<B>& at, In<Scalar<B>> x, In<Scalar<B>> d_out,
                          const std::array<ProjectionGradient<B>, n>& maps) {
  bool all = true;
  for (const auto& map : maps) all = all && map.weight && map.weight.cols() == maps[0].weight.cols();
  for (const auto& map : maps) all = all && static_cast<bool>(map.bias) == static_cast<bool>(maps[0].bias);
  if (all) {
    auto weight = maps[0].weight, bias = maps[0].bias;
    for (std::size_t i = 1; i < n; ++i) {
      weight = joined(weight, maps[i].weight);
      bias = joined(bias, maps[i].bias);
    }
    return at.on.linear_weight_gradient(
        {.x = x, .d_out = d_out, .d_weight = weight, .d_bias = bias, .accumulate = at.accumulate});
  }
  Index column = 0;
  for (const auto& map : maps) {
    if (map.weight || map.bias)
      at.on.linear_weight_gradient({.x = x,
                                    .d_out = d_out,
                                    .first_column = column,
                                    .d_weight = map.weight,
                                    .d_bias = map.bias,
                                    .accumulate = at.accumulate});
    column += map.features;
  }
}

}  // namespace parscale
