/// Root mean square normalisation, plain and interleaved, against plain loops and central differences.
#include "tensors.hpp"

namespace parscale::test {
namespace {

struct Sizes {
  Index positions, hidden, replicas;
};
const Sizes sizes[] = {{1, 8, 1}, {3, 64, 2}, {5, 33, 3}, {70, 48, 4}, {9, 130, 8}, {40, 896, 1}};

/// Index of row r*N + n, feature h in the result.
Index place(const Sizes& s, Index row, Index h, bool interleaved) {
  const Index n = row % s.positions, r = row / s.positions;
  return interleaved ? (n * s.hidden + h) * s.replicas + r : row * s.hidden + h;
}

template <class T>
void check_forward(const Sizes& s, bool interleaved) {
  const Index rows = s.positions * s.replicas;
  Cpu<T> on({.threads = 2});
  const auto x = random_tensor<T>({rows, s.hidden}, 1), gain = random_tensor<T>({s.hidden}, 2);
  Tensor<T> out({rows, s.hidden}), rstd({rows});
  on.rms_norm({.x = x.in(),
               .gain = gain.in(),
               .eps = 1e-6,
               .interleave = interleaved ? s.replicas : 1,
               .out = out.out(),
               .rstd = rstd.out()});
  Tensor<double> expected({rows, s.hidden}), expected_rstd({rows});
  for (Index row = 0; row < rows; ++row) {
    double squares = 0;
    for (Index h = 0; h < s.hidden; ++h) squares += std::pow(static_cast<double>(x[row * s.hidden + h]), 2);
    expected_rstd[row] = 1 / std::sqrt(squares / static_cast<double>(s.hidden) + 1e-6);
    for (Index h = 0; h < s.hidden; ++h)
      expected[place(s, row, h, interleaved)] =
          static_cast<double>(gain[h]) * static_cast<double>(x[row * s.hidden + h]) * expected_rstd[row];
  }
  INFO(s.positions << " positions, hidden " << s.hidden << ", " << s.replicas << " replicas");
  CHECK(difference(out, expected) < tolerance<T>());
  CHECK(difference(rstd, expected_rstd) < tolerance<T>());
}

TEST_CASE("Normalised rows have a mean square of one times the gain, interleaved when asked for") {
  for (const Sizes& s : sizes)
    for (bool interleaved : {false, true}) {
      check_forward<float>(s, interleaved);
      check_forward<double>(s, interleaved);
    }
}

void check_backward(const Sizes& s, bool interleaved) {
  const Index rows = s.positions * s.replicas, interleave = interleaved ? s.replicas : 1;
  Cpu<double> on({.threads = 2});
  auto x = random_tensor<double>({rows, s.hidden}, 1), gain = random_tensor<double>({s.hidden}, 2);
  const auto probe = random_tensor<double>({rows, s.hidden}, 3),
             residual = random_tensor<double>({rows, s.hidden}, 4);
  Tensor<double> out({rows, s.hidden}), rstd({rows});
  const auto forward = [&] {
    on.rms_norm({.x = x.in(),
                 .gain = gain.in(),
                 .eps = 1e-6,
                 .interleave = interleave,
                 .out = out.out(),
                 .rstd = rstd.out()});
    return product_sum(out, probe);
  };
  forward();
  Tensor<double> d_x({rows, s.hidden}), d_gain({s.hidden}, 5), with_residual = residual;
  on.rms_norm_backward({.x = x.in(),
                        .gain = gain.in(),
                        .rstd = rstd.in(),
                        .d_out = probe.in(),
                        .interleave = interleave,
                        .d_x = d_x.out(),
                        .d_gain = d_gain.out()});
  on.rms_norm_backward({.x = x.in(),
                        .gain = gain.in(),
                        .rstd = rstd.in(),
                        .d_out = probe.in(),
                        .interleave = interleave,
                        .d_residual = with_residual.in(),
                        .d_x = with_residual.out()});
  for (double& g : d_gain.values) g -= 5;  // it is added to
  CHECK(gradient_difference(forward, x, d_x) < gradient_tolerance);
  CHECK(gradient_difference(forward, gain, d_gain) < gradient_tolerance);
  Tensor<double> sum = d_x;
  for (Index i = 0; i < sum.count(); ++i) sum[i] += residual[i];
  CHECK(difference(with_residual, sum) < 1e-14);
}

TEST_CASE("The gradients of a norm agree with central differences, with a residual in place") {
  for (const Sizes& s : sizes)
    for (bool interleaved : {false, true}) check_backward(s, interleaved);
}

TEST_CASE("Norms have the same bits for any number of threads") {
  for (const Sizes& s : sizes) {
    const Index rows = s.positions * s.replicas;
    const auto x = random_tensor<float>({rows, s.hidden}, 1), gain = random_tensor<float>({s.hidden}, 2),
               d_out = random_tensor<float>({rows, s.hidden}, 3);
    require_same_bits<float>([&](Cpu<float>& on) {
      Tensor<float> out({rows, s.hidden}), rstd({rows}), d_x({rows, s.hidden}), d_gain({s.hidden});
      on.rms_norm({.x = x.in(),
                   .gain = gain.in(),
                   .eps = 1e-6,
                   .interleave = s.replicas,
                   .out = out.out(),
                   .rstd = rstd.out()});
      on.rms_norm_backward({.x = x.in(),
                            .gain = gain.in(),
                            .rstd = rstd.in(),
                            .d_out = d_out.in(),
                            .interleave = s.replicas,
                            .d_x = d_x.out(),
                            .d_gain = d_gain.out()});
      return together(out, rstd, d_x, d_gain);
    });
  }
}

}  // namespace
}  // namespace parscale::test
