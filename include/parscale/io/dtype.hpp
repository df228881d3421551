/// The element types of tensor files, and the two 16-bit floating-point formats that C++20 does not have.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace parscale::io {

static_assert(std::endian::native == std::endian::little, "parscale: tensor files are little-endian");

/// How a file stores one element. The 8-bit floating-point types are known by name and size only.
enum class Dtype : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  f8_e4m3,
  f8_e5m2,
};

namespace detail {

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  std::size_t bytes;
};

inline constexpr DtypeRow dtype_table[] = {
    {Dtype::f64, "F64", 8},      {Dtype::f32, "F32", 4},         {Dtype::f16, "F16", 2},
    {Dtype::bf16, "BF16", 2},    {Dtype::i64, "I64", 8},         {Dtype::i32, "I32", 4},
    {Dtype::i16, "I16", 2},      {Dtype::i8, "I8", 1},           {Dtype::u64, "U64", 8},
    {Dtype::u32, "U32", 4},      {Dtype::u16, "U16", 2},         {Dtype::u8, "U8", 1},
    {Dtype::boolean, "BOOL", 1}, {Dtype::f8_e4m3, "F8_E4M3", 1}, {Dtype::f8_e5m2, "F8_E5M2", 1},
};

constexpr const DtypeRow& row_of(Dtype dtype) { return dtype_table[static_cast<std::size_t>(dtype)]; }

}  // namespace detail

/// The name in a safetensors header: "F32", "BF16", ...
constexpr std::string_view name_of(Dtype dtype) { return detail::row_of(dtype).name; }

/// Bytes of one element.
constexpr std::size_t size_of(Dtype dtype) { return detail::row_of(dtype).bytes; }

/// The dtype of a safetensors name; nothing when the name is unknown.
constexpr std::optional<Dtype> dtype_named(std::string_view name) {
  for (const auto& row : detail::dtype_table) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

/// A 16-bit binary floating-point number: one sign bit, `exponent_bits`, and the rest for the mantissa.
/// Conversions round to nearest, ties to even, once: also from double, where a detour through float would
/// round twice. Too large becomes infinity, too small a subnormal or zero; a NaN stays a (quiet) NaN of its
/// sign.
template <int exponent_bits>
struct Float16Bits {
  static constexpr int mantissa_bits = 15 - exponent_bits;
  static constexpr int bias = (1 << (exponent_bits - 1)) - 1;
  static constexpr std::uint16_t infinity =
      static_cast<std::uint16_t>(((1 << exponent_bits) - 1) << mantissa_bits);

  std::uint16_t bits = 0;

  static constexpr Float16Bits from(double value);
  static constexpr Float16Bits from(float value) { return from(static_cast<double>(value)); }
  constexpr explicit operator float() const;
  constexpr explicit operator double() const { return static_cast<double>(static_cast<float>(*this)); }
};

using Float16 = Float16Bits<5>;   ///< IEEE 754 binary16
using BFloat16 = Float16Bits<8>;  ///< the upper half of a float

template <int exponent_bits>
constexpr Float16Bits<exponent_bits> Float16Bits<exponent_bits>::from(double value) {
  constexpr int double_mantissa = 52, double_bias = 1023;
  const auto pattern = std::bit_cast<std::uint64_t>(value);
  const auto sign = static_cast<std::uint16_t>(pattern >> 63 << 15);
  const auto mantissa = pattern & ((std::uint64_t{1} << double_mantissa) - 1);
  const int exponent = static_cast<int>(pattern >> double_mantissa & 0x7ff) - double_bias;
  if (exponent > double_bias && mantissa != 0)  // NaN: the quiet bit is the highest of the mantissa
    return {static_cast<std::uint16_t>(sign | infinity | 1 << (mantissa_bits - 1))};
  if (exponent > bias) return {static_cast<std::uint16_t>(sign | infinity)};

  // Below the smallest normal exponent the mantissa loses one more bit for each missing power of two.
  const int missing = exponent < 1 - bias ? 1 - bias - exponent : 0;
  const int dropped = double_mantissa - mantissa_bits + missing;
  if (dropped > double_mantissa + 1) return {sign};
  const std::uint64_t significand = mantissa | std::uint64_t{1} << double_mantissa;
  const std::uint64_t half = std::uint64_t{1} << (dropped - 1);
  const std::uint64_t odd = significand >> dropped & 1;
  const std::uint64_t rounded = (significand + half - 1 + odd) >> dropped;
  // The leading one of a normal number is added to the exponent field, and so is a carry out of the mantissa:
  // up to infinity, all of it comes out right.
  const auto field = missing > 0 ? 0 : static_cast<std::uint64_t>(exponent + bias - 1) << mantissa_bits;
  return {static_cast<std::uint16_t>(sign | (field + rounded))};
}

/// From float the upper half is rounded in place, which a compiler can vectorise.
template <>
constexpr BFloat16 BFloat16::from(float value) {
  const auto pattern = std::bit_cast<std::uint32_t>(value);
  const bool nan = (pattern & 0x7fffffff) > 0x7f800000;
  const std::uint32_t rounded = (pattern + 0x7fff + (pattern >> 16 & 1)) >> 16;
  return {static_cast<std::uint16_t>(nan ? (pattern >> 16 & 0x8000) | 0x7fc0 : rounded)};
}

template <int exponent_bits>
constexpr Float16Bits<exponent_bits>::operator float() const {
  constexpr int float_mantissa = 23, float_bias = 127, shift = float_mantissa - mantissa_bits;
  const auto sign = static_cast<std::uint32_t>(bits >> 15) << 31;
  const std::uint32_t magnitude = bits & 0x7fffu;
  if constexpr (bias == float_bias) {
    return std::bit_cast<float>(sign | magnitude << shift);
  } else {
    constexpr std::uint32_t rebias = std::uint32_t{float_bias - bias} << float_mantissa;
    constexpr auto smallest = std::bit_cast<float>((float_bias + 1 - bias - mantissa_bits) << float_mantissa);
    if (magnitude >= infinity)
      return std::bit_cast<float>(sign | 0x7f800000u |
                                  static_cast<std::uint32_t>(magnitude - infinity) << shift);
    if (magnitude >> mantissa_bits == 0)  // zero and the subnormals are multiples of the smallest one
      return (sign != 0 ? -smallest : smallest) * static_cast<float>(magnitude);
    return std::bit_cast<float>(sign | ((magnitude << shift) + rebias));
  }
}

}  // namespace parscale::io
