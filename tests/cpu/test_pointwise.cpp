/// Activations, sums, copies and AdamW against plain loops and central differences.
#include <array>

#include "tensors.hpp"

namespace parscale::test {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// Random numbers that reach far into the flat parts of exponentials.
template <class T>
Tensor<T> wide_random(const Extent& extent, std::uint64_t seed) {
  Tensor<T> x = random_tensor<T>(extent, seed);
  for (Index i = 0; i < x.count(); ++i) x[i] *= i % 7 == 0 ? T(120) : T(4);
  return x;
}

template <class T>
void check_silu(Index n) {
  Cpu<T> on({.threads = 2});
  const auto x = wide_random<T>({n}, 1);
  Tensor<T> out({n});
  on.silu({.x = x.in(), .out = out.out()});
  Tensor<double> expected({n});
  for (Index i = 0; i < n; ++i) expected[i] = static_cast<double>(x[i]) * sigmoid(static_cast<double>(x[i]));
  CHECK(difference(out, expected) < tolerance<T>());
}

TEST_CASE("SiLU is x times its sigmoid, far from zero too") {
  for (Index n : {1, 15, 100, 40000}) {
    check_silu<float>(n);
    check_silu<double>(n);
  }
}

TEST_CASE("The float exponential is within two units in the last place and never stops being a number") {
  double worst = 0;
  for (float x = -87.0F; x < 88.0F; x += 0.0137F) {
    const double exact = std::exp(static_cast<double>(x));
    const float nearest = static_cast<float>(exact);
    const double unit = static_cast<double>(std::nextafter(nearest, INFINITY)) - static_cast<double>(nearest);
    worst = std::max(worst, std::abs(static_cast<double>(cpu::exponential(x)) - exact) / unit);
  }
  CHECK(worst < 2);
  CHECK(cpu::exponential(0.0F) == 1.0F);
  CHECK(cpu::exponential(-1000.0F) == 0.0F);
  CHECK(cpu::exponential(-INFINITY) == 0.0F);
  CHECK(std::isfinite(cpu::exponential(1000.0F)));
  CHECK(std::isnan(cpu::exponential(NAN)));
}

TEST_CASE("The gradient of SiLU agrees with central differences, also in place") {
  Cpu<double> on({.threads = 2});
  auto x = random_tensor<double>({300}, 1);
  const auto probe = random_tensor<double>({300}, 2);
  Tensor<double> out({300}), d_x = probe;
  const auto forward = [&] {
    on.silu({.x = x.in(), .out = out.out()});
    return product_sum(out, probe);
  };
  on.silu_backward({.x = x.in(), .d_out = d_x.in(), .d_x = d_x.out()});
  CHECK(gradient_difference(forward, x, d_x) < gradient_tolerance);
}

template <class T>
void check_gated_mlp(Index rows, Index width) {
  Cpu<T> on({.threads = 2});
  const auto gate_up = wide_random<T>({rows, 2 * width}, 1);
  Tensor<T> product({rows, width});
  on.gated_mlp({.gate_up = gate_up.in(), .product = product.out()});
  Tensor<double> expected({rows, width});
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < width; ++j) {
      const double gate = static_cast<double>(gate_up[i * 2 * width + j]);
      expected[i * width + j] =
          gate * sigmoid(gate) * static_cast<double>(gate_up[i * 2 * width + width + j]);
    }
  CHECK(difference(product, expected) < tolerance<T>());
}

TEST_CASE("The gated MLP multiplies SiLU of the gate with the rest") {
  for (Index width : {1, 24, 704, 20000}) {
    check_gated_mlp<float>(9, width);
    check_gated_mlp<double>(9, width);
  }
}

TEST_CASE("The gated MLP's backward leaves its gradients and its product in place") {
  Cpu<double> on({.threads = 2});
  auto gate_up = random_tensor<double>({7, 44}, 1);
  const auto probe = random_tensor<double>({7, 22}, 2);
  Tensor<double> product({7, 22});
  const auto forward = [&] {
    on.gated_mlp({.gate_up = gate_up.in(), .product = product.out()});
    return product_sum(product, probe);
  };
  forward();
  Tensor<double> d_gate_up = gate_up, given = probe;
  on.gated_mlp_backward({.gate_up = d_gate_up.out(), .product = given.out()});
  CHECK(difference(given, product) < 1e-14);
  CHECK(gradient_difference(forward, gate_up, d_gate_up) < gradient_tolerance);
}

TEST_CASE("A gated linear layer and its backward are the product and the activation, bit by bit") {
  Cpu<float> on({.threads = 2});
  const auto x = random_tensor<float>({9, 40}, 1), weight = random_tensor<float>({48, 40}, 2),
             down = random_tensor<float>({40, 24}, 3);
  Tensor<float> gate_up({9, 48}), product({9, 24}), same_gate_up = gate_up, same_product = product;
  on.linear({.x = x.in(), .weight = weight.in(), .out = gate_up.out()});
  on.gated_mlp({.gate_up = gate_up.in(), .product = product.out()});
  on.gated_linear(
      {.x = x.in(), .weight = weight.in(), .gate_up = same_gate_up.out(), .product = same_product.out()});
  CHECK(same_gate_up.values == gate_up.values);
  CHECK(same_product.values == product.values);
  on.linear_input_gradient({.d_out = x.in(), .weight = down.in(), .d_x = product.out()});
  on.gated_mlp_backward({.gate_up = gate_up.out(), .product = product.out()});
  same_product = Tensor<float>({9, 24}, std::nanf(""));
  on.gated_linear_backward(
      {.d_out = x.in(), .weight = down.in(), .gate_up = same_gate_up.out(), .product = same_product.out()});
  CHECK(same_gate_up.values == gate_up.values);
  CHECK(same_product.values == product.values);
}

TEST_CASE("The sum of squares is exact to float64") {
  Cpu<float> on({.threads = 2});
  for (Index n : {0, 1, 63, 65, 1000, 100001}) {
    const auto x = random_tensor<float>({n}, 1);
    double expected = 0;
    for (float value : x.values) expected += static_cast<double>(value) * static_cast<double>(value);
    CHECK(std::abs(on.sum_of_squares(x.in()) - expected) <= 1e-14 * expected * static_cast<double>(n));
  }
}

TEST_CASE("Copies and zeros reach every element") {
  Cpu<float> on({.threads = 2});
  for (Index n : {1, 1000, 200000}) {
    const auto x = random_tensor<float>({n}, 1);
    Tensor<float> y({n}), z({n}), w({n});
    on.copy(x.in(), y.out());
    on.to_host(y.in(), z.values.data());
    on.from_host(z.values.data(), w.out());
    CHECK(w.values == x.values);
    on.fill_zero(y.out());
    CHECK(y.values == Tensor<float>({n}).values);
  }
}

/// One AdamW step of PyTorch's definition in float64: weight, first and second moment.
std::array<double, 3> expected_adamw(double weight, double g, double m, double v, double step) {
  const double rate = 1e-2, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, decay = 0.1;
  weight *= 1 - rate * decay;
  m = beta1 * m + (1 - beta1) * g;
  v = beta2 * v + (1 - beta2) * g * g;
  const double m_hat = m / (1 - std::pow(beta1, step)), v_hat = v / (1 - std::pow(beta2, step));
  return {weight - rate * m_hat / (std::sqrt(v_hat) + epsilon), m, v};
}

template <class T>
void check_adamw(Index step) {
  const Index n = 20001;
  Cpu<T> on({.threads = 2});
  const auto gradient = random_tensor<T>({n}, 1);
  const Tensor<T> w = random_tensor<T>({n}, 2), m = random_tensor<T>({n}, 3);
  Tensor<T> v = random_tensor<T>({n}, 4);
  for (T& value : v.values) value *= value;
  Tensor<T> weight = w, first = m, second = v;
  on.adamw({.weight = weight.out(),
            .gradient = gradient.in(),
            .first = first.out(),
            .second = second.out(),
            .learning_rate = 1e-2,
            .beta1 = 0.9,
            .beta2 = 0.999,
            .epsilon = 1e-8,
            .weight_decay = 0.1,
            .gradient_scale = 0.5,
            .step = step});
  Tensor<double> expected({n}), expected_first({n}), expected_second({n});
  for (Index i = 0; i < n; ++i) {
    const auto e =
        expected_adamw(static_cast<double>(w[i]), 0.5 * static_cast<double>(gradient[i]),
                       static_cast<double>(m[i]), static_cast<double>(v[i]), static_cast<double>(step));
    expected[i] = e[0];
    expected_first[i] = e[1];
    expected_second[i] = e[2];
  }
  CHECK(difference(weight, expected) < tolerance<T>());
  CHECK(difference(first, expected_first) < tolerance<T>());
  CHECK(difference(second, expected_second) < tolerance<T>());
}

TEST_CASE("AdamW corrects its moments' bias, decays weights and scales gradients") {
  for (Index step : {1, 2, 1000}) {
    check_adamw<float>(step);
    check_adamw<double>(step);
  }
}

TEST_CASE("Elementwise operations have the same bits for any number of threads") {
  const auto x = random_tensor<float>({50, 1400}, 1), d = random_tensor<float>({50, 700}, 2);
  require_same_bits<float>([&](Cpu<float>& on) {
    Tensor<float> product({50, 700}), gate_up = x, d_product = d, active({50, 1400}), d_active({50, 1400});
    on.gated_mlp({.gate_up = x.in(), .product = product.out()});
    on.gated_mlp_backward({.gate_up = gate_up.out(), .product = d_product.out()});
    on.silu({.x = x.in(), .out = active.out()});
    on.silu_backward({.x = x.in(), .d_out = active.in(), .d_x = d_active.out()});
    const double squares = on.sum_of_squares(x.in());
    const Tensor<float> total({1}, static_cast<float>(squares));
    return together(product, gate_up, d_product, active, d_active, total);
  });
}

TEST_CASE("AdamW and the sum of squares have the same bits for any number of threads") {
  const auto x = random_tensor<double>({100001}, 1);
  require_same_bits<double>([&](Cpu<double>& on) {
    Tensor<double> weight = x, first = x, second({100001}, 0.5);
    on.adamw({.weight = weight.out(),
              .gradient = x.in(),
              .first = first.out(),
              .second = second.out(),
              .learning_rate = 1e-3,
              .beta1 = 0.9,
              .beta2 = 0.999,
              .epsilon = 1e-8,
              .weight_decay = 0,
              .step = 3});
    return together(weight, first, second, Tensor<double>({1}, on.sum_of_squares(x.in())));
  });
}

}  // namespace
}  // namespace parscale::test
