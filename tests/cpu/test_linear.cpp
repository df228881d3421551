/// Linear layers and their gradients against plain loops.
#include "tensors.hpp"

namespace parscale::test {
namespace {

struct Sizes {
  Index rows, inner, cols;
};
const Sizes sizes[] = {{1, 1, 1},   {1, 64, 48},   {3, 17, 5},      {8, 130, 300},  {16, 33, 70},
                       {17, 70, 9}, {65, 40, 300}, {300, 257, 513}, {520, 64, 130}, {40, 1100, 24}};

/// x w^T + bias + add in float64.
template <class T>
Tensor<double> expected_linear(const Tensor<T>& x, const Tensor<T>& w, const Tensor<T>* bias,
                               const Tensor<T>* add) {
  const Index rows = x.extent[0], inner = x.extent[1], cols = w.extent[0];
  Tensor<double> out({rows, cols});
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) {
      double total = bias != nullptr ? static_cast<double>((*bias)[j]) : 0;
      if (add != nullptr) total += static_cast<double>((*add)[i * cols + j]);
      for (Index k = 0; k < inner; ++k)
        total += static_cast<double>(x[i * inner + k]) * static_cast<double>(w[j * inner + k]);
      out[i * cols + j] = total;
    }
  return out;
}

template <class T>
void check_linear(const Sizes& s) {
  Cpu<T> on({.threads = 2});
  const auto x = random_tensor<T>({s.rows, s.inner}, 1), w = random_tensor<T>({s.cols, s.inner}, 2),
             bias = random_tensor<T>({s.cols}, 3), add = random_tensor<T>({s.rows, s.cols}, 4);
  INFO(s.rows << " rows, " << s.inner << " to " << s.cols);
  Tensor<T> out({s.rows, s.cols}, T(99));
  on.linear({.x = x.in(), .weight = w.in(), .out = out.out()});
  CHECK(difference(out, expected_linear<T>(x, w, nullptr, nullptr)) < tolerance<T>());
  on.linear({.x = x.in(), .weight = w.in(), .bias = bias.in(), .add = add.in(), .out = out.out()});
  CHECK(difference(out, expected_linear<T>(x, w, &bias, &add)) < tolerance<T>());
  Tensor<T> in_place = add;
  on.linear({.x = x.in(), .weight = w.in(), .add = in_place.in(), .out = in_place.out()});
  CHECK(difference(in_place, expected_linear<T>(x, w, nullptr, &add)) < tolerance<T>());
}

TEST_CASE("A linear layer is the product with its bias and what is added") {
  for (const Sizes& s : sizes) {
    check_linear<float>(s);
    check_linear<double>(s);
  }
}

template <class T>
void check_input_gradient(const Sizes& s) {
  Cpu<T> on({.threads = 2});
  const auto d_out = random_tensor<T>({s.rows, s.cols}, 1), w = random_tensor<T>({s.cols, s.inner}, 2);
  Tensor<T> transposed({s.inner, s.cols});
  for (Index j = 0; j < s.cols; ++j)
    for (Index k = 0; k < s.inner; ++k) transposed[k * s.cols + j] = w[j * s.inner + k];
  INFO(s.rows << " rows, " << s.inner << " to " << s.cols);
  Tensor<T> d_x({s.rows, s.inner}, T(99));
  on.linear_input_gradient({.d_out = d_out.in(), .weight = w.in(), .d_x = d_x.out()});
  CHECK(difference(d_x, expected_linear<T>(d_out, transposed, nullptr, nullptr)) < tolerance<T>());
  const Tensor<T> before = random_tensor<T>({s.rows, s.inner}, 5);
  d_x = before;
  on.linear_input_gradient({.d_out = d_out.in(), .weight = w.in(), .d_x = d_x.out(), .accumulate = true});
  CHECK(difference(d_x, expected_linear<T>(d_out, transposed, nullptr, &before)) < tolerance<T>());
}

TEST_CASE("The gradient of a linear layer's input overwrites or is added to") {
  for (const Sizes& s : sizes) {
    check_input_gradient<float>(s);
    check_input_gradient<double>(s);
  }
}

template <class T>
void check_weight_gradient(const Sizes& s, Index first, Index behind) {
  Cpu<T> on({.threads = 2});
  const Index wide = first + s.cols + behind;
  const auto x = random_tensor<T>({s.rows, s.inner}, 1), d_out = random_tensor<T>({s.rows, wide}, 2);
  const Tensor<T> start = random_tensor<T>({s.cols, s.inner}, 3), start_bias = random_tensor<T>({s.cols}, 4);
  Tensor<double> expected = as<double>(start), expected_bias = as<double>(start_bias);
  for (Index i = 0; i < s.rows; ++i)
    for (Index j = 0; j < s.cols; ++j) {
      const double d = static_cast<double>(d_out[i * wide + first + j]);
      expected_bias[j] += d;
      for (Index k = 0; k < s.inner; ++k)
        expected[j * s.inner + k] += d * static_cast<double>(x[i * s.inner + k]);
    }
  INFO(s.rows << " rows, " << s.inner << " to " << s.cols << ", columns from " << first << " of " << wide);
  Tensor<T> d_weight = start, d_bias = start_bias;
  on.linear_weight_gradient({.x = x.in(),
                             .d_out = d_out.in(),
                             .first_column = first,
                             .d_weight = d_weight.out(),
                             .d_bias = d_bias.out()});
  CHECK(difference(d_weight, expected) < tolerance<T>());
  CHECK(difference(d_bias, expected_bias) < tolerance<T>());
  Tensor<T> only_weight = start, only_bias = start_bias;
  on.linear_weight_gradient(
      {.x = x.in(), .d_out = d_out.in(), .first_column = first, .d_weight = only_weight.out()});
  on.linear_weight_gradient(
      {.x = x.in(), .d_out = d_out.in(), .first_column = first, .d_bias = only_bias.out()});
  CHECK(only_weight.values == d_weight.values);
  CHECK(only_bias.values == d_bias.values);
}

TEST_CASE("The gradients of weight and bias are added to, from a range of columns") {
  for (const Sizes& s : sizes) {
    check_weight_gradient<float>(s, 0, 0);
    check_weight_gradient<double>(s, 7, 3);
  }
}

TEST_CASE("Linear layers have the same bits for any number of threads") {
  for (const Sizes& s : sizes) {
    const auto x = random_tensor<float>({s.rows, s.inner}, 1), w = random_tensor<float>({s.cols, s.inner}, 2),
               bias = random_tensor<float>({s.cols}, 3), d_out = random_tensor<float>({s.rows, s.cols}, 4);
    require_same_bits<float>([&](Cpu<float>& on) {
      Tensor<float> out({s.rows, s.cols}), d_x({s.rows, s.inner}), d_w({s.cols, s.inner}), d_bias({s.cols});
      on.linear({.x = x.in(), .weight = w.in(), .bias = bias.in(), .out = out.out()});
      on.linear_input_gradient({.d_out = d_out.in(), .weight = w.in(), .d_x = d_x.out()});
      on.linear_weight_gradient(
          {.x = x.in(), .d_out = d_out.in(), .d_weight = d_w.out(), .d_bias = d_bias.out()});
      return together(out, d_x, d_w, d_bias);
    });
  }
}

}  // namespace
}  // namespace parscale::test
