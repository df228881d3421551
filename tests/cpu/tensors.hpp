/// Small owned tensors, comparisons and derivative checks for the tests of the CPU backend.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include <parscale/backend/cpu/cpu.hpp>

namespace parscale::test {

/// A tensor with memory of its own.
template <class T>
struct Tensor {
  Extent extent{};
  std::vector<T> values{};

  Tensor() = default;
  explicit Tensor(const Extent& e, T value = T(0))
      : extent(e), values(static_cast<std::size_t>(e.count()), value) {}

  In<T> in() const { return {values.data(), extent}; }
  Out<T> out() { return {values.data(), extent}; }
  T& operator[](Index i) { return values[static_cast<std::size_t>(i)]; }
  const T& operator[](Index i) const { return values[static_cast<std::size_t>(i)]; }
  Index count() const { return extent.count(); }
};

/// The same numbers in another type.
template <class To, class From>
Tensor<To> as(const Tensor<From>& from) {
  Tensor<To> to(from.extent);
  for (Index i = 0; i < from.count(); ++i) to[i] = static_cast<To>(from[i]);
  return to;
}

/// Uniform in [-1, 1), a function of the seed. They are float32 numbers in every type.
template <class T>
Tensor<T> random_tensor(const Extent& extent, std::uint64_t seed) {
  Tensor<T> tensor(extent);
  std::uint64_t state = seed * 0x9E3779B97F4A7C15U + 12345;
  for (T& value : tensor.values) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    value = static_cast<T>(static_cast<float>(static_cast<std::int32_t>(state >> 32)) / 2147483648.0F);
  }
  return tensor;
}

/// Uniform in [0, below).
template <class I>
Tensor<I> random_integers(const Extent& extent, Index below, std::uint64_t seed) {
  Tensor<I> tensor(extent);
  const Tensor<double> uniform = random_tensor<double>(extent, seed);
  for (Index i = 0; i < tensor.count(); ++i)
    tensor[i] = static_cast<I>((uniform[i] + 1) / 2 * static_cast<double>(below));
  return tensor;
}

/// Greatest difference, relative to the greatest magnitude of what is expected.
template <class T, class U>
double difference(const Tensor<T>& got, const Tensor<U>& expected) {
  REQUIRE(got.count() == expected.count());
  double worst = 0, greatest = 1e-30;
  for (Index i = 0; i < got.count(); ++i) {
    const double e = static_cast<double>(expected[i]), g = static_cast<double>(got[i]);
    greatest = std::max(greatest, std::abs(e));
    worst = std::max(worst, std::isfinite(g) ? std::abs(g - e) : 1e30);
  }
  return worst / greatest;
}

/// What a result of type T may differ from a float64 loop by.
template <class T>
constexpr double tolerance() {
  return sizeof(T) == 4 ? 2e-6 : 1e-13;
}

inline double product_sum(const Tensor<double>& a, const Tensor<double>& b) {
  double total = 0;
  for (Index i = 0; i < a.count(); ++i) total += a[i] * b[i];
  return total;
}

/// Compares `gradient` with central differences of `loss` at some elements of x; x is left as it was.
inline double gradient_difference(const std::function<double()>& loss, Tensor<double>& x,
                                  const Tensor<double>& gradient, Index samples = 24) {
  const double step = 1e-4;
  double worst = 0, greatest = 1e-30;
  const Index stride = std::max<Index>(1, x.count() / samples);
  for (double g : gradient.values) greatest = std::max(greatest, std::abs(g));
  for (Index i = 0; i < x.count(); i += stride) {
    const double kept = x[i];
    const auto at = [&](double offset) {
      x[i] = kept + offset;
      return loss();
    };
    // Five points: the error falls with the fourth power of the step.
    const double slope = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
    x[i] = kept;
    worst = std::max(worst, std::abs(slope - gradient[i]));
  }
  return worst / greatest;
}
inline constexpr double gradient_tolerance = 1e-7;

/// Runs `results` with 1, 2, 3 and 7 threads and requires the same bits.
template <class T>
void require_same_bits(const std::function<std::vector<T>(Cpu<T>&)>& results) {
  Cpu<T> alone({.threads = 1});
  const std::vector<T> expected = results(alone);
  for (int threads : {2, 3, 7}) {
    Cpu<T> on({.threads = threads});
    CHECK(results(on) == expected);
  }
}

/// All values one after the other, for comparisons of bits.
template <class T, class... Rest>
std::vector<T> together(const Tensor<T>& first, const Rest&... rest) {
  std::vector<T> all = first.values;
  (all.insert(all.end(), rest.values.begin(), rest.values.end()), ...);
  return all;
}

}  // namespace parscale::test
