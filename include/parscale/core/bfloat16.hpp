/// bfloat16 as a host type: storage and exact conversion. Arithmetic happens in wider types.
#pragma once

#include <bit>
#include <cstdint>

namespace parscale {

/// The upper half of a float32.
struct BFloat16 {
  std::uint16_t bits = 0;

  constexpr BFloat16() = default;
  /// Rounds to the nearest, ties to even; NaN stays NaN.
  constexpr explicit BFloat16(float value) {
    const auto wide = std::bit_cast<std::uint32_t>(value);
    const bool nan = (wide & 0x7fffffffU) > 0x7f800000U;
    bits = static_cast<std::uint16_t>(nan ? (wide >> 16U) | 0x40U
                                          : (wide + 0x7fffU + ((wide >> 16U) & 1U)) >> 16U);
  }
  constexpr explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
  }
  constexpr explicit operator double() const { return static_cast<double>(static_cast<float>(*this)); }
};
static_assert(sizeof(BFloat16) == 2);

}  // namespace parscale
