/// Attention between the replicas of a position: definition, gradients, threads.
#include "tensors.hpp"

namespace parscale::test {
namespace {

struct Sizes {
  Index sequences, tokens, heads, kv_heads;
};

template <int P>
Layout layout(const Sizes& s) {
  return {.sequences = s.sequences, .tokens = s.tokens, .replicas = P};
}

template <class T, int D, int P>
Tensor<T> attended(Cpu<T>& on, const Sizes& s, const Tensor<T>& qkv) {
  Tensor<T> out({qkv.extent[0], s.heads * D}, T(5));
  on.attend_replicas(
      Int<D>{}, Int<P>{},
      {.layout = layout<P>(s), .heads = s.heads, .kv_heads = s.kv_heads, .qkv = qkv.in(), .out = out.out()});
  return out;
}

template <class T, int D, int P>
Tensor<T> gradient(Cpu<T>& on, const Sizes& s, const Tensor<T>& qkv, const Tensor<T>& d_out) {
  Tensor<T> d_qkv(qkv.extent, T(5));
  on.attend_replicas_backward(Int<D>{}, Int<P>{},
                              {.layout = layout<P>(s),
                               .heads = s.heads,
                               .kv_heads = s.kv_heads,
                               .qkv = qkv.in(),
                               .d_out = d_out.in(),
                               .d_qkv = d_qkv.out()});
  return d_qkv;
}

template <class T, int D, int P>
void check_forward(const Sizes& s) {
  Cpu<T> on({.threads = 2});
  const Index n = s.sequences * s.tokens, width = (s.heads + 2 * s.kv_heads) * D;
  const auto qkv = random_tensor<T>({P * n, width}, 1);
  Tensor<double> expected({P * n, s.heads * D});
  const auto at = [&](Index row, Index head, Index d) {
    return static_cast<double>(qkv[row * width + head * D + d]);
  };
  for (Index row = 0; row < P * n; ++row)
    for (Index head = 0; head < s.heads; ++head) {
      const Index g = head / (s.heads / s.kv_heads);
      double weights[P], total = 0;
      for (int p = 0; p < P; ++p) {
        double score = 0;
        for (Index d = 0; d < D; ++d) score += at(row, head, d) * at(p * n + row % n, s.heads + g, d);
        total += weights[p] = std::exp(score / std::sqrt(static_cast<double>(D)));
      }
      for (int p = 0; p < P; ++p)
        for (Index d = 0; d < D; ++d)
          expected[(row * s.heads + head) * D + d] +=
              weights[p] / total * at(p * n + row % n, s.heads + s.kv_heads + g, d);
    }
  CHECK(difference(attended<T, D, P>(on, s, qkv), expected) < tolerance<T>());
}

template <int D, int P>
void check_backward(const Sizes& s) {
  Cpu<double> on({.threads = 2});
  const Index rows = P * s.sequences * s.tokens;
  auto qkv = random_tensor<double>({rows, (s.heads + 2 * s.kv_heads) * D}, 1);
  const auto probe = random_tensor<double>({rows, s.heads * D}, 2);
  const auto d_qkv = gradient<double, D, P>(on, s, qkv, probe);
  const auto loss = [&] { return product_sum(attended<double, D, P>(on, s, qkv), probe); };
  CHECK(gradient_difference(loss, qkv, d_qkv, 60) < gradient_tolerance);
}

const Sizes sizes[] = {{1, 1, 1, 1}, {2, 9, 4, 2}, {1, 30, 8, 1}, {3, 5, 7, 7}};

TEST_CASE("Replicas attend to each other by the definition") {
  for (const Sizes& s : sizes) {
    check_forward<float, 64, 4>(s);
    check_forward<float, 8, 2>(s);
    check_forward<double, 16, 3>(s);
    check_forward<double, 128, 8>(s);
  }
}

TEST_CASE("Gradients of attention between replicas agree with central differences") {
  for (const Sizes& s : sizes) {
    check_backward<8, 2>(s);
    check_backward<16, 3>(s);
    check_backward<24, 8>(s);
  }
}

TEST_CASE("Attention between replicas has the same bits for any number of threads") {
  for (const Sizes& s : sizes) {
    const Index rows = 4 * s.sequences * s.tokens;
    const auto qkv = random_tensor<float>({rows, (s.heads + 2 * s.kv_heads) * 16}, 1),
               d_out = random_tensor<float>({rows, s.heads * 16}, 2);
    require_same_bits<float>([&](Cpu<float>& on) {
      return together(attended<float, 16, 4>(on, s, qkv), gradient<float, 16, 4>(on, s, qkv, d_out));
    });
  }
}

}  // namespace
}  // namespace parscale::test
