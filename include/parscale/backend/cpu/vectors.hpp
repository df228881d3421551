/// Loops over one row of numbers, written so that compilers vectorise them, with sums in a fixed order.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "../../config.hpp"

namespace parscale::cpu {

/// Independent partial sums: what lets a sum vectorise without the compiler changing its order.
inline constexpr int lanes = 16;

template <class T>
T sum_lanes(T (&part)[lanes]) {
  for (int width = lanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}

/// Sum of f(i) over [0, n).
template <class T, class F>
T sum(Index n, F f) {
  T part[lanes] = {};
  Index i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int j = 0; j < lanes; ++j) part[j] += f(i + j);
  for (int j = 0; i < n; ++i, ++j) part[j] += f(i);
  return sum_lanes(part);
}

template <class T>
T dot(const T* a, const T* b, Index n) {
  return sum<T>(n, [=](Index i) { return a[i] * b[i]; });
}

/// y += scale x
template <class T>
void add_scaled(T* y, const T* x, T scale, Index n) {
  for (Index i = 0; i < n; ++i) y[i] += scale * x[i];
}

template <class T>
T max_of(const T* x, Index n) {
  T part[lanes];
  std::fill_n(part, lanes, x[0]);
  Index i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int j = 0; j < lanes; ++j) part[j] = x[i + j] > part[j] ? x[i + j] : part[j];
  for (; i < n; ++i) part[0] = x[i] > part[0] ? x[i] : part[0];
  for (int j = 1; j < lanes; ++j) part[0] = part[j] > part[0] ? part[j] : part[0];
  return part[0];
}

/// e^x. In float a polynomial without branches, within 2 units in the last place; 0 below -87.3, infinity
/// never reached: arguments above 88 count as 88.
inline float exponential(float x) {
  constexpr float log2_e = 1.44269504088896341F, ln2_high = 0.693359375F, ln2_low = -2.12194440e-4F;
  constexpr float rounder = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const float clamped = x > 88.0F ? 88.0F : (x < -87.3F ? -87.3F : x);
  const float shifted = clamped * log2_e + rounder;
  const float n = shifted - rounder;
  const float r = (clamped - n * ln2_high) - n * ln2_low;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const std::int32_t power = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(rounder);
  const float scale = std::bit_cast<float>((power + 127) << 23);
  return x < -87.3F ? 0.0F : p * scale;
}
inline double exponential(double x) { return std::exp(x); }

/// The square root of x >= 0 to a few units in the last place. std::sqrt may set errno, which keeps loops
/// from vectorising: this is Newton's iteration for 1 / sqrt(x) from a first guess in integer arithmetic.
template <class T>
T square_root(T x) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  constexpr Bits guess =
      sizeof(T) == 4 ? static_cast<Bits>(0x5F375A86) : static_cast<Bits>(0x5FE6EB50C7B537A9);
  T y = std::bit_cast<T>(static_cast<Bits>(guess - (std::bit_cast<Bits>(x) >> 1)));
  for (int i = 0; i < (sizeof(T) == 4 ? 3 : 5); ++i) y *= T(1.5) - T(0.5) * x * y * y;
  return x * y;
}

/// 1 / (1 + e^-x)
template <class T>
T sigmoid(T x) {
  return 1 / (1 + exponential(-x));
}

}  // namespace parscale::cpu
