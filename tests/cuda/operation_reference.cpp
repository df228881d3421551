#include "operation_reference.hpp"

#include <parscale/backend/cpu/cpu.hpp>

namespace parscale::test::reference {
namespace {

Cpu<double>& cpu() {
  static Cpu<double> backend;
  return backend;
}

/// Calls f with the value as a compile-time int, when it is one of those listed.
template <int... values, class F>
void as_constant(int value, F f) {
  const bool known = ((value == values ? (f(Int<values>{}), true) : false) || ...);
  if (!known) throw std::logic_error("the reference is not compiled for " + std::to_string(value));
}

}  // namespace

void run(const op::Embed<double>& a) { cpu().embed(a); }
void run(const op::EmbedBackward<double, double>& a) { cpu().embed_backward(a); }
void run(const op::RmsNorm<double, double>& a) { cpu().rms_norm(a); }
void run(const op::RmsNormBackward<double, double>& a) { cpu().rms_norm_backward(a); }
void run(const op::Linear<double>& a) { cpu().linear(a); }
void run(const op::LinearInputGradient<double>& a) { cpu().linear_input_gradient(a); }
void run(const op::LinearWeightGradient<double, double>& a) { cpu().linear_weight_gradient(a); }
void run(int head_dim, const op::Rotate<double>& a) {
  as_constant<56, 64, 80, 128>(head_dim, [&](auto d) { cpu().rotate(d, a); });
}
void run(const op::GatedMlp<double>& a) { cpu().gated_mlp(a); }
void run(const op::GatedMlpBackward<double>& a) { cpu().gated_mlp_backward(a); }
void run(const op::GatedLinear<double>& a) { cpu().gated_linear(a); }
void run(const op::GatedLinearBackward<double>& a) { cpu().gated_linear_backward(a); }
void run(const op::Silu<double>& a) { cpu().silu(a); }
void run(const op::SiluBackward<double>& a) { cpu().silu_backward(a); }
void run(int replicas, const op::Merge<double, double>& a) {
  as_constant<2, 3, 4, 8>(replicas, [&](auto p) { cpu().merge(p, a); });
}
void run(int replicas, const op::MergeBackward<double, double>& a) {
  as_constant<2, 3, 4, 8>(replicas, [&](auto p) { cpu().merge_backward(p, a); });
}
double run(const op::HeadLoss<double, double>& a) { return cpu().head_loss(a); }
void run(const op::AdamW<double, double>& a) { cpu().adamw(a); }

}  // namespace parscale::test::reference
