/// Rotary embedding against its definition in float64.
#include "tensors.hpp"

namespace parscale::test {
namespace {

/// Rotates the first `heads` heads of one row.
template <class T>
void rotate_row(Tensor<double>& expected, const Tensor<T>& x, Index row, Index heads, Index dim,
                double position, double theta) {
  const Index width = x.extent[1], half = dim / 2;
  for (Index head = 0; head < heads; ++head)
    for (Index d = 0; d < half; ++d) {
      const double angle =
          position * std::pow(theta, -2.0 * static_cast<double>(d) / static_cast<double>(dim));
      const Index low = row * width + head * dim + d, high = low + half;
      const double u = static_cast<double>(x[low]), v = static_cast<double>(x[high]);
      expected[low] = u * std::cos(angle) - v * std::sin(angle);
      expected[high] = u * std::sin(angle) + v * std::cos(angle);
    }
}

template <class T, int D>
void check_rotate(const Layout& layout, bool by_replica) {
  Cpu<T> on({.threads = 2});
  const Index heads = 3, width = 4 * D;
  const auto x = random_tensor<T>({layout.rows(), width}, 1);
  Tensor<double> expected = as<double>(x);
  for (Index row = 0; row < layout.rows(); ++row) {
    const Index n = row % layout.positions(), token = n % layout.tokens;
    Index position = row / layout.positions();
    if (!by_replica)
      position = token + (layout.past ? layout.past.data[n / layout.tokens] : 0) -
                 (layout.starts ? layout.starts.data[n] : 0);
    rotate_row(expected, x, row, heads, D, static_cast<double>(position), 1e6);
  }
  Tensor<T> rotated = x;
  op::Rotate<T> operands{
      .layout = layout, .x = rotated.out(), .heads = heads, .theta = 1e6, .by_replica = by_replica};
  on.rotate(Int<D>{}, operands);
  CHECK(difference(rotated, expected) < tolerance<T>());
  operands.inverse = true;
  on.rotate(Int<D>{}, operands);
  CHECK(difference(rotated, x) < tolerance<T>());
}

template <class T, int D>
void check_layouts() {
  const Tensor<Index> past = random_integers<Index>({3}, 5000, 1);
  Tensor<std::int32_t> starts({2, 40});
  for (Index n = 0; n < 80; ++n) starts[n] = static_cast<std::int32_t>(n % 40 / 15 * 15);
  check_rotate<T, D>({.sequences = 1, .tokens = 1}, false);
  check_rotate<T, D>({.sequences = 2, .tokens = 300, .replicas = 3}, false);
  check_rotate<T, D>({.sequences = 3, .tokens = 1, .replicas = 4, .past = past.in()}, false);
  check_rotate<T, D>({.sequences = 3, .tokens = 12, .replicas = 2, .past = past.in()}, false);
  check_rotate<T, D>({.sequences = 2, .tokens = 40, .replicas = 2, .starts = starts.in()}, false);
  check_rotate<T, D>({.sequences = 2, .tokens = 7, .replicas = 8}, true);
}

TEST_CASE("Rotation turns by the position, and its inverse turns back") {
  check_layouts<float, 8>();
  check_layouts<float, 64>();
  check_layouts<double, 16>();
  check_layouts<double, 160>();
}

TEST_CASE("Another base or another head size does not reuse old angles") {
  Cpu<double> on({.threads = 1});
  const auto x = random_tensor<double>({5, 32}, 1);
  const Layout layout{.sequences = 1, .tokens = 5};
  for (double theta : {10000.0, 1e6, 10000.0}) {
    Tensor<double> rotated = x, expected = x;
    on.rotate(Int<32>{}, {.layout = layout, .x = rotated.out(), .heads = 1, .theta = theta});
    for (Index row = 0; row < 5; ++row) rotate_row(expected, x, row, 1, 32, static_cast<double>(row), theta);
    CHECK(difference(rotated, expected) < 1e-14);
    rotated = expected = x;
    on.rotate(Int<16>{}, {.layout = layout, .x = rotated.out(), .heads = 2, .theta = theta});
    for (Index row = 0; row < 5; ++row) rotate_row(expected, x, row, 2, 16, static_cast<double>(row), theta);
    CHECK(difference(rotated, expected) < 1e-14);
  }
}

TEST_CASE("Rotation has the same bits for any number of threads") {
  const auto x = random_tensor<float>({600, 4 * 64}, 1);
  require_same_bits<float>([&](Cpu<float>& on) {
    Tensor<float> rotated = x;
    on.rotate(Int<64>{}, {.layout = {.sequences = 2, .tokens = 100, .replicas = 3},
                          .x = rotated.out(),
                          .heads = 3,
                          .theta = 1e4});
    return rotated.values;
  });
}

}  // namespace
}  // namespace parscale::test
