/// The weighted sum of the streams and its gradients against plain loops and central differences.
#include "tensors.hpp"

namespace parscale::test {
namespace {

template <class T, int P>
void check_forward(Index n, Index h, double smoothing) {
  Cpu<T> on({.threads = 2});
  const auto streams = random_tensor<T>({n, h, P}, 1), scores = random_tensor<T>({n, P}, 2);
  Tensor<T> weights({n, P}), out({n, h});
  on.merge(Int<P>{}, {.streams = streams.in(),
                      .scores = scores.in(),
                      .smoothing = smoothing,
                      .weights = weights.out(),
                      .out = out.out()});
  Tensor<double> expected({n, h}), expected_weights({n, P});
  for (Index i = 0; i < n; ++i) {
    double total = 0;
    for (int r = 0; r < P; ++r) total += std::exp(static_cast<double>(scores[i * P + r]));
    for (int r = 0; r < P; ++r) {
      const double w = expected_weights[i * P + r] = std::exp(static_cast<double>(scores[i * P + r])) / total;
      for (Index j = 0; j < h; ++j)
        expected[i * h + j] +=
            static_cast<double>(streams[(i * h + j) * P + r]) * (w * (1 - smoothing) + smoothing / P);
    }
  }
  INFO(P << " replicas");
  CHECK(difference(out, expected) < tolerance<T>());
  CHECK(difference(weights, expected_weights) < tolerance<T>());
}

template <int P>
void check_backward(Index n, Index h, double smoothing) {
  Cpu<double> on({.threads = 2});
  auto streams = random_tensor<double>({n, h, P}, 1), scores = random_tensor<double>({n, P}, 2);
  const auto probe = random_tensor<double>({n, h}, 3);
  Tensor<double> weights({n, P}), out({n, h}), d_streams({n, h, P}), d_scores({n, P});
  const auto forward = [&] {
    on.merge(Int<P>{}, {.streams = streams.in(),
                        .scores = scores.in(),
                        .smoothing = smoothing,
                        .weights = weights.out(),
                        .out = out.out()});
    return product_sum(out, probe);
  };
  forward();
  on.merge_backward(Int<P>{}, {.streams = streams.in(),
                               .weights = weights.in(),
                               .smoothing = smoothing,
                               .d_out = probe.in(),
                               .d_streams = d_streams.out(),
                               .d_scores = d_scores.out()});
  INFO(P << " replicas");
  CHECK(gradient_difference(forward, streams, d_streams) < gradient_tolerance);
  if (P > 1) CHECK(gradient_difference(forward, scores, d_scores) < gradient_tolerance);
}

template <int P>
void check_all() {
  for (double smoothing : {0.0, 0.01, 1.0}) check_forward<float, P>(21, 40, smoothing);
  check_forward<double, P>(1, 7, 0.1);
  check_forward<double, P>(50, 130, 0.1);
  check_backward<P>(9, 19, 0.1);
  check_backward<P>(1, 64, 0.0);
}

TEST_CASE("Merging is the smoothed softmax of the scores over the streams") {
  check_all<1>();
  check_all<2>();
  check_all<3>();
  check_all<4>();
  check_all<8>();
}

TEST_CASE("Merging has the same bits for any number of threads") {
  const auto streams = random_tensor<float>({77, 50, 4}, 1), scores = random_tensor<float>({77, 4}, 2),
             d_out = random_tensor<float>({77, 50}, 3);
  require_same_bits<float>([&](Cpu<float>& on) {
    Tensor<float> weights({77, 4}), out({77, 50}), d_streams({77, 50, 4}), d_scores({77, 4});
    on.merge(Int<4>{}, {.streams = streams.in(),
                        .scores = scores.in(),
                        .smoothing = 0.1,
                        .weights = weights.out(),
                        .out = out.out()});
    on.merge_backward(Int<4>{}, {.streams = streams.in(),
                                 .weights = weights.in(),
                                 .smoothing = 0.1,
                                 .d_out = d_out.in(),
                                 .d_streams = d_streams.out(),
                                 .d_scores = d_scores.out()});
    return together(weights, out, d_streams, d_scores);
  });
}

}  // namespace
}  // namespace parscale::test
