/// Central differences: is a gradient the derivative of what was computed?
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cmath>
#include <parscale/core/parameters.hpp>
#include <parscale/core/random.hpp>
#include <span>
#include <string>
#include <vector>

namespace parscale::test {

/// Draws from N(0, deviation).
inline std::vector<double> random_values(Index count, std::uint64_t seed, double deviation = 0.5) {
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = deviation * normal(seed, 0, i);
  return values;
}

/// The derivative of sum(c * outputs()) along one number, by four points: an error of step^4 in theory and of
/// 1e-12 in rounding. Outputs are subtracted before they are summed, so that little is lost.
template <class F>
double central_difference(double& x, std::span<const double> c, F& outputs) {
  constexpr double step = 1e-3;
  const double middle = x;
  const auto at = [&](double offset) {
    x = middle + offset;
    return outputs();
  };
  const auto far_below = at(-2 * step), below = at(-step), above = at(step), far_above = at(2 * step);
  x = middle;
  double sum = 0;
  for (std::size_t i = 0; i < c.size(); ++i)
    sum += c[i] * (8 * (above[i] - below[i]) - (far_above[i] - far_below[i]));
  return sum / (12 * step);
}

/// Whether a gradient element is right: 1e-7 of itself, and of 1e-3 where it is smaller than that.
inline bool close(double gradient, double difference) {
  return std::abs(gradient - difference) <= 1e-7 * std::max(std::abs(difference), 1e-3);
}

/// Compares the gradient of sum(c * outputs()) with central differences of every number of `values`, or of
/// every `stride`th.
template <class F>
void check_gradient(const std::string& name, std::span<double> values, std::span<const double> gradient,
                    std::span<const double> c, F outputs, std::size_t stride = 1) {
  REQUIRE(values.size() == gradient.size());
  for (std::size_t i = 0; i < values.size(); i += stride) {
    const double difference = central_difference(values[i], c, outputs);
    if (close(gradient[i], difference)) continue;
    FAIL_CHECK(name << "[" << i << "]: gradient " << gradient[i] << ", central difference " << difference);
    return;
  }
  SUCCEED();
}

/// Values and gradients of a group of tensors: what a store is to a model. Gradients start at one, since they
/// are added to.
template <template <class> class Group>
class Parameters {
 public:
  Parameters(const Group<Extent>& extents, std::uint64_t seed)
      : extents_(extents), values_(random_values(count(extents), seed)), gradients_(values_.size(), 1.0) {}

  Group<In<double>> weights() const { return bind(extents_, static_cast<const double*>(values_.data())); }
  Group<Out<double>> gradients() { return bind(extents_, gradients_.data()); }

  /// Compares all gradients, or every `stride`th, with central differences of sum(c * outputs()).
  template <class F>
  void check_gradients(std::span<const double> c, F outputs, std::size_t stride = 1) {
    std::size_t first = 0;
    Group<Extent>::each(
        [&](std::string_view name, const Extent& extent) {
          const auto size = static_cast<std::size_t>(extent.count());
          std::vector<double> gradient(gradients_.begin() + static_cast<std::ptrdiff_t>(first),
                                       gradients_.begin() + static_cast<std::ptrdiff_t>(first + size));
          for (double& g : gradient) g -= 1.0;
          check_gradient(std::string(name), std::span(values_).subspan(first, size), gradient, c, outputs,
                         stride);
          first += size;
        },
        extents_);
  }

 private:
  Group<Extent> extents_;
  std::vector<double> values_, gradients_;
};

}  // namespace parscale::test
