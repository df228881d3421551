/// bfloat16 on the CPU, to compare the GPU's with: float32 operations whose results are rounded where the GPU
/// stores them. Whatever the batch, its distance from float64 is what rounding alone costs there.
#pragma once

#include <parscale/backend/cpu/cpu.hpp>
#include <parscale/core/bfloat16.hpp>

namespace parscale::test {

class RoundedCpu : public Cpu<float> {
  using Base = Cpu<float>;
  using F = float;

 public:
  void embed(const op::Embed<F>& a) {
    call([&] { Base::embed(a); }, a.out);
  }
  void rms_norm(const op::RmsNorm<F, F>& a) {
    call([&] { Base::rms_norm(a); }, a.out);
  }
  void rms_norm_backward(const op::RmsNormBackward<F, F>& a) {
    call([&] { Base::rms_norm_backward(a); }, a.d_x);
  }
  void linear(const op::Linear<F>& a) {
    call([&] { Base::linear(a); }, a.out);
  }
  void linear_input_gradient(const op::LinearInputGradient<F>& a) {
    call([&] { Base::linear_input_gradient(a); }, a.d_x);
  }
  void gated_linear(const op::GatedLinear<F>& a) {
    linear({.x = a.x, .weight = a.weight, .out = a.gate_up});
    gated_mlp({.gate_up = a.gate_up, .product = a.product});
  }
  void gated_linear_backward(const op::GatedLinearBackward<F>& a) {
    linear_input_gradient({.d_out = a.d_out, .weight = a.weight, .d_x = a.product});
    gated_mlp_backward({.gate_up = a.gate_up, .product = a.product});
  }
  void gated_mlp(const op::GatedMlp<F>& a) {
    call([&] { Base::gated_mlp(a); }, a.product);
  }
  void gated_mlp_backward(const op::GatedMlpBackward<F>& a) {
    call([&] { Base::gated_mlp_backward(a); }, a.gate_up, a.product);
  }
  void sum_replicas(const op::SumReplicas<F>& a) {
    call([&] { Base::sum_replicas(a); }, a.x);
  }
  void silu(const op::Silu<F>& a) {
    call([&] { Base::silu(a); }, a.out);
  }
  void silu_backward(const op::SiluBackward<F>& a) {
    call([&] { Base::silu_backward(a); }, a.d_x);
  }
  double head_loss(const op::HeadLoss<F, F>& a) {
    double loss = 0;
    call([&] { loss = Base::head_loss(a); }, a.d_x);
    return loss;
  }
  template <int D>
  void rotate(Int<D> d, const op::Rotate<F>& a) {
    call([&] { Base::rotate(d, a); }, a.x);
  }
  template <int D>
  void attend(Int<D> d, const op::Attend<F, F>& a) {
    call([&] { Base::attend(d, a); }, a.out);
  }
  template <int D>
  void attend_backward(Int<D> d, const op::AttendBackward<F, F>& a) {
    call([&] { Base::attend_backward(d, a); }, a.d_qkv);
  }
  template <int D, int P>
  void attend_expanded(Int<D> d, Int<P> p, const op::Attend<F, F>& a) {
    call([&] { Base::attend_expanded(d, p, a); }, a.out);
  }
  template <int D, int P>
  void attend_expanded_backward(Int<D> d, Int<P> p, const op::AttendBackward<F, F>& a) {
    call([&] { Base::attend_expanded_backward(d, p, a); }, a.d_qkv);
  }
  template <int D, int P>
  void attend_replicas(Int<D> d, Int<P> p, const op::AttendReplicas<F>& a) {
    call([&] { Base::attend_replicas(d, p, a); }, a.out);
  }
  template <int D, int P>
  void attend_replicas_backward(Int<D> d, Int<P> p, const op::AttendReplicasBackward<F>& a) {
    call([&] { Base::attend_replicas_backward(d, p, a); }, a.d_qkv);
  }
  template <int P>
  void merge(Int<P> p, const op::Merge<F, F>& a) {
    call([&] { Base::merge(p, a); }, a.out);
  }
  template <int P>
  void merge_backward(Int<P> p, const op::MergeBackward<F, F>& a) {
    call([&] { Base::merge_backward(p, a); }, a.d_streams, a.d_scores);
  }

 private:
  template <class Operation>
  static void call(Operation operation, auto... results) {
    operation();
    (round_in_place(results), ...);
  }
  static void round_in_place(Out<F> x) {
    for (Index i = 0; x && i < x.count(); ++i) x.data[i] = static_cast<float>(BFloat16(x.data[i]));
  }
};

static_assert(Backend<RoundedCpu>);

}  // namespace parscale::test
