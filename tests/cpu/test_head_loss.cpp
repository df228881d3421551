/// The vocabulary head's loss and gradients against plain loops.
#include "tensors.hpp"

namespace parscale::test {
namespace {

struct Sizes {
  Index rows, hidden, vocabulary;
};
/// The last one has more rows than the logits that are alive at once.
const Sizes sizes[] = {{1, 8, 3}, {7, 16, 40}, {33, 20, 300}, {70, 64, 530}, {1100, 16, 40}};

/// The definition, row by row, in float64.
struct Expected {
  double loss = 0;
  Tensor<double> d_x, d_weight;

  template <class T>
  Expected(const Tensor<T>& x, const Tensor<T>& w, const Tensor<Token>& targets, double scale)
      : d_x(x.extent), d_weight(w.extent) {
    const Index n = x.extent[0], h = x.extent[1], v = w.extent[0];
    for (Index i = 0; i < n; ++i) {
      if (targets[i] < 0) continue;
      std::vector<double> logits(static_cast<std::size_t>(v));
      double total = 0;
      for (Index j = 0; j < v; ++j) {
        double z = 0;
        for (Index k = 0; k < h; ++k)
          z += static_cast<double>(x[i * h + k]) * static_cast<double>(w[j * h + k]);
        total += std::exp(logits[static_cast<std::size_t>(j)] = z);
      }
      loss += (std::log(total) - logits[static_cast<std::size_t>(targets[i])]) * scale;
      for (Index j = 0; j < v; ++j) {
        const double d =
            (std::exp(logits[static_cast<std::size_t>(j)]) / total - (j == targets[i] ? 1 : 0)) * scale;
        for (Index k = 0; k < h; ++k) {
          d_x[i * h + k] += d * static_cast<double>(w[j * h + k]);
          d_weight[j * h + k] += d * static_cast<double>(x[i * h + k]);
        }
      }
    }
  }
};

/// Every third position does not count.
Tensor<Token> some_targets(const Sizes& s) {
  Tensor<Token> targets = random_integers<Token>({s.rows}, s.vocabulary, 3);
  for (Index i = 1; i < s.rows; i += 3) targets[i] = -1;
  return targets;
}

template <class T>
void check_head_loss(const Sizes& s) {
  Cpu<T> on({.threads = 2});
  const auto x = random_tensor<T>({s.rows, s.hidden}, 1), w = random_tensor<T>({s.vocabulary, s.hidden}, 2);
  const auto targets = some_targets(s);
  const Expected expected(x, w, targets, 0.125);
  Tensor<T> d_x({s.rows, s.hidden}, T(7)), d_w({s.vocabulary, s.hidden}, T(1)), d_x_alone({s.rows, s.hidden});
  const op::HeadLoss<T> forward{.x = x.in(), .weight = w.in(), .targets = targets.in(), .scale = 0.125};
  op::HeadLoss<T> both = forward, only_x = forward;
  both.d_x = d_x.out();
  both.d_weight = d_w.out();
  only_x.d_x = d_x_alone.out();
  INFO(s.rows << " rows, vocabulary " << s.vocabulary);
  CHECK(std::abs(on.head_loss(forward) - expected.loss) < tolerance<T>() * expected.loss);
  CHECK(std::abs(on.head_loss(both) - expected.loss) < tolerance<T>() * expected.loss);
  CHECK(std::abs(on.head_loss(only_x) - expected.loss) < tolerance<T>() * expected.loss);
  for (T& g : d_w.values) g -= 1;  // it is added to
  CHECK(difference(d_x, expected.d_x) < tolerance<T>());
  CHECK(difference(d_w, expected.d_weight) < tolerance<T>() * 10);
  CHECK(difference(d_x_alone, expected.d_x) < tolerance<T>());
}

TEST_CASE("The head's loss and gradients are the cross-entropy's over the positions that count") {
  for (const Sizes& s : sizes) {
    check_head_loss<float>(s);
    check_head_loss<double>(s);
  }
}

TEST_CASE("The head's loss has the same bits for any number of threads") {
  for (const Sizes& s : sizes) {
    const auto x = random_tensor<float>({s.rows, s.hidden}, 1),
               w = random_tensor<float>({s.vocabulary, s.hidden}, 2);
    const auto targets = some_targets(s);
    require_same_bits<float>([&](Cpu<float>& on) {
      Tensor<float> d_x({s.rows, s.hidden}), d_w({s.vocabulary, s.hidden}), loss({1});
      loss[0] = static_cast<float>(on.head_loss({.x = x.in(),
                                                 .weight = w.in(),
                                                 .targets = targets.in(),
                                                 .scale = 0.5,
                                                 .d_x = d_x.out(),
                                                 .d_weight = d_w.out()}));
      return together(d_x, d_w, loss);
    });
  }
}

TEST_CASE("Logits far apart give a finite loss") {
  Cpu<float> on({.threads = 1});
  const Tensor<float> x({1, 1}, 1000.0F);
  Tensor<float> w({2, 1}, 1.0F), d_x({1, 1});
  w[1] = -1.0F;
  const Tensor<Token> targets({1}, 1);
  CHECK(
      on.head_loss({.x = x.in(), .weight = w.in(), .targets = targets.in(), .scale = 1, .d_x = d_x.out()}) ==
      2000.0);
  CHECK(d_x[0] == 2.0F);
}

TEST_CASE("A target outside the vocabulary is an input error") {
  Cpu<float> on({.threads = 1});
  const Tensor<float> x({2, 4}), w({3, 4});
  Tensor<Token> targets({2}, 0);
  targets[1] = 3;
  CHECK_THROWS_AS(on.head_loss({.x = x.in(), .weight = w.in(), .targets = targets.in(), .scale = 1}),
                  InputError);
}

}  // namespace
}  // namespace parscale::test
