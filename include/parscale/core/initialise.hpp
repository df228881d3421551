/// How parameters start. A parameter's name says how; its values are a function of (seed, name, index) alone.
#pragma once

#include <span>
#include <string_view>

#include "random.hpp"

namespace parscale {

enum class Fill { normal, zeros, ones };

/// Norm gains start at one and biases at zero. The sublayer kind's output projection starts at zero, so that
/// a converted model starts as the same model without it. Everything else is drawn.
constexpr Fill fill_of(std::string_view name) {
  if (name.ends_with("norm.weight")) return Fill::ones;
  if (name.ends_with("bias")) return Fill::zeros;
  if (name.ends_with("cross_replica_attn.o_proj.weight")) return Fill::zeros;
  return Fill::normal;
}

/// "N(0, 0.02)", for reports.
constexpr const char* name_of(Fill fill) {
  return fill == Fill::ones ? "ones" : fill == Fill::zeros ? "zeros" : "N(0, initializer_range)";
}

/// Whether weight decay applies: never on biases and norms, as in Hugging Face's Trainer.
constexpr bool decays(std::string_view name) {
  return !name.ends_with("bias") && !name.ends_with("norm.weight");
}

/// Fills the elements of a parameter from `offset` on.
template <class T>
void initialise(std::span<T> values, std::string_view name, double deviation, std::uint64_t seed,
                std::int64_t offset = 0) {
  const Fill fill = fill_of(name);
  const std::uint64_t stream = stream_of(name);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] =
        fill == Fill::ones ? T(1)
        : fill == Fill::zeros
            ? T(0)
            : static_cast<T>(deviation * normal(seed, stream, static_cast<std::uint64_t>(offset) + i));
}

}  // namespace parscale
