/// Counter-based random numbers: a value is a function of (seed, stream, index) alone, so it does not depend
/// on the order, the number of threads or the number of ranks. Philox 4x32-10 (Salmon et al., SC 2011).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace parscale {

/// 128 random bits for a 64-bit key and a 128-bit counter.
inline std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high,
                                           std::uint64_t counter_low) {
  const auto low = [](std::uint64_t v) { return static_cast<std::uint32_t>(v); };
  const auto high = [](std::uint64_t v) { return static_cast<std::uint32_t>(v >> 32); };
  std::array<std::uint32_t, 4> c{low(counter_low), high(counter_low), low(counter_high), high(counter_high)};
  std::uint32_t k0 = low(key), k1 = high(key);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0], p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {high(p1) ^ c[1] ^ k0, low(p1), high(p0) ^ c[3] ^ k1, low(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

/// A stream's number from its name (FNV-1a, 64 bits).
constexpr std::uint64_t stream_of(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325ull;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return hash;
}

/// Uniform in (0, 1), 53 bits.
inline double uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  const auto bits = philox(seed, stream, index);
  const std::uint64_t word = std::uint64_t{bits[1]} << 32 | bits[0];
  return (static_cast<double>(word >> 11) + 0.5) * 0x1.0p-53;
}

/// Standard normal (Box-Muller; two neighbours share one draw).
inline double normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  const auto bits = philox(seed, stream, index / 2);
  const auto unit = [](std::uint32_t a, std::uint32_t b) {
    return (static_cast<double>((std::uint64_t{a} << 32 | b) >> 11) + 0.5) * 0x1.0p-53;
  };
  const double radius = std::sqrt(-2.0 * std::log(unit(bits[0], bits[1])));
  const double angle = 2.0 * std::numbers::pi * unit(bits[2], bits[3]);
  return radius * (index % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

}  // namespace parscale
