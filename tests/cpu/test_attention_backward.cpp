/// Gradients of self-attention, plain and expanded, against central differences in float64.
#include "attention_cases.hpp"

namespace parscale::test {
namespace {

template <class T>
struct Gradients {
  Tensor<T> qkv, prefix_k, prefix_v;
};

template <class T, int D, int P>
Gradients<T> gradients(Cpu<T>& on, const AttentionCase<T>& a, bool expanded, const Tensor<T>& d_out) {
  Tensor<T> out, log_sum;
  Gradients<T> d{Tensor<T>(a.qkv.extent, T(33)), Tensor<T>(a.prefix_k.extent), Tensor<T>(a.prefix_v.extent)};
  const op::Attend<T> forward = a.attend(expanded ? P : 1, out, log_sum);
  const op::AttendBackward<T> backward{.layout = a.layout(),
                                       .heads = a.sizes.heads,
                                       .kv_heads = a.sizes.kv_heads,
                                       .qkv = a.qkv.in(),
                                       .prefix_k = a.prefix_k.in(),
                                       .prefix_v = a.prefix_v.in(),
                                       .out = out.in(),
                                       .log_sum = log_sum.in(),
                                       .d_out = d_out.in(),
                                       .d_qkv = d.qkv.out(),
                                       .d_prefix_k = d.prefix_k.out(),
                                       .d_prefix_v = d.prefix_v.out()};
  if (expanded) {
    on.attend_expanded(Int<D>{}, Int<P>{}, forward);
    on.attend_expanded_backward(Int<D>{}, Int<P>{}, backward);
  } else {
    on.attend(Int<D>{}, forward);
    on.attend_backward(Int<D>{}, backward);
  }
  return d;
}

template <int D, int P>
void check_gradients(const AttentionSizes& sizes, bool expanded) {
  Cpu<double> on({.threads = 2});
  AttentionCase<double> a(sizes, D, P);
  INFO("D " << D << ", P " << P << ", B " << sizes.sequences << ", S " << sizes.tokens << ", A "
            << sizes.heads << ", G " << sizes.kv_heads << ", T " << sizes.prefix
            << (expanded ? ", expanded" : ""));
  const auto probe = random_tensor<double>({a.rows(), (expanded ? P : 1) * sizes.heads * D}, 9);
  const Gradients<double> d = gradients<double, D, P>(on, a, expanded, probe);
  const auto loss = [&] {
    Tensor<double> out, log_sum;
    if (expanded)
      on.attend_expanded(Int<D>{}, Int<P>{}, a.attend(P, out, log_sum));
    else
      on.attend(Int<D>{}, a.attend(1, out, log_sum));
    return product_sum(out, probe);
  };
  CHECK(gradient_difference(loss, a.qkv, d.qkv, 16) < gradient_tolerance);
  if (sizes.prefix == 0) return;
  CHECK(gradient_difference(loss, a.prefix_k, d.prefix_k, 12) < gradient_tolerance);
  CHECK(gradient_difference(loss, a.prefix_v, d.prefix_v, 12) < gradient_tolerance);
}

TEST_CASE("Gradients of attention agree with central differences") {
  for (const AttentionSizes& sizes : whole_sequences()) {
    check_gradients<16, 1>(sizes, false);
    check_gradients<8, 3>(sizes, false);
    check_gradients<8, 3>(sizes, true);
  }
  check_gradients<64, 2>({1, 40, 4, 2, 48}, true);
  check_gradients<8, 8>({2, 9, 8, 1, 5}, true);
}

TEST_CASE("Gradients of attention in float32 are those in float64") {
  for (const AttentionSizes& sizes : whole_sequences())
    for (bool expanded : {false, true}) {
      Cpu<float> narrow({.threads = 2});
      Cpu<double> wide({.threads = 2});
      const AttentionCase<float> a(sizes, 16, 2);
      const AttentionCase<double> b(sizes, 16, 2);
      const Extent extent{a.rows(), (expanded ? 2 : 1) * sizes.heads * 16};
      const auto got = gradients<float, 16, 2>(narrow, a, expanded, random_tensor<float>(extent, 9));
      const auto expected = gradients<double, 16, 2>(wide, b, expanded, random_tensor<double>(extent, 9));
      CHECK(difference(got.qkv, expected.qkv) < 5e-6);
      if (sizes.prefix > 0) CHECK(difference(got.prefix_k, expected.prefix_k) < 5e-6);
      if (sizes.prefix > 0) CHECK(difference(got.prefix_v, expected.prefix_v) < 5e-6);
    }
}

TEST_CASE("Prefix gradients are added to, and may be absent") {
  Cpu<double> on({.threads = 1});
  const AttentionCase<double> a({2, 9, 4, 2, 6}, 8, 2);
  Tensor<double> out, log_sum, d_qkv(a.qkv.extent), d_qkv_alone(a.qkv.extent);
  Tensor<double> d_k(a.prefix_k.extent, 1), d_v(a.prefix_v.extent, 1);
  const auto d_out = random_tensor<double>({a.rows(), 4 * 8}, 9);
  const auto d = gradients<double, 8, 2>(on, a, false, d_out);
  on.attend(Int<8>{}, a.attend(1, out, log_sum));
  op::AttendBackward<double> backward{.layout = a.layout(),
                                      .heads = 4,
                                      .kv_heads = 2,
                                      .qkv = a.qkv.in(),
                                      .prefix_k = a.prefix_k.in(),
                                      .prefix_v = a.prefix_v.in(),
                                      .out = out.in(),
                                      .log_sum = log_sum.in(),
                                      .d_out = d_out.in(),
                                      .d_qkv = d_qkv_alone.out()};
  on.attend_backward(Int<8>{}, backward);
  backward.d_qkv = d_qkv.out();
  backward.d_prefix_k = d_k.out();
  backward.d_prefix_v = d_v.out();
  on.attend_backward(Int<8>{}, backward);
  for (double& x : d_k.values) x -= 1;
  for (double& x : d_v.values) x -= 1;
  CHECK(difference(d_k, d.prefix_k) < 1e-14);
  CHECK(difference(d_v, d.prefix_v) < 1e-14);
  CHECK(d_qkv.values == d.qkv.values);
  CHECK(d_qkv_alone.values == d.qkv.values);
}

TEST_CASE("Gradients of attention have the same bits for any number of threads") {
  for (const AttentionSizes& sizes : whole_sequences())
    for (bool expanded : {false, true}) {
      const AttentionCase<float> a(sizes, 16, 2);
      const auto d_out = random_tensor<float>({a.rows(), (expanded ? 2 : 1) * sizes.heads * 16}, 9);
      require_same_bits<float>([&](Cpu<float>& on) {
        const auto d = gradients<float, 16, 2>(on, a, expanded, d_out);
        return together(d.qkv, d.prefix_k, d.prefix_v);
      });
    }
}

}  // namespace
}  // namespace parscale::test
