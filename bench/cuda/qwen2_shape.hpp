/// The shape that training steps are timed at.
#pragma once

#include <parscale/config.hpp>

/// Qwen2-1.5B with 48 prefix tokens; `layers` of its 28.
inline parscale::Shape qwen2_1_5b(parscale::Index layers) {
  return {.layers = layers,
          .hidden = 1536,
          .intermediate = 8960,
          .heads = 12,
          .kv_heads = 2,
          .vocabulary = 151936,
          .prefix_tokens = 48,
          .rope_theta = 1e6,
          .tied = true};
}
