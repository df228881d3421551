/// The CUDA backend with a stopwatch: where a training step's time goes, operation by operation, and what
/// each must move and multiply at least.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <parscale/backend/cuda/cuda.hpp>
#include <parscale/core/random.hpp>
#include <string>
#include <utility>
#include <vector>

namespace parscale::bench {

/// All calls of one kind.
struct StepPart {
  int calls = 0;
  double ms = 0;
  double bytes = 0;  ///< of operands, each read or written once
  double flops = 0;  ///< multiplications and additions of products
};

/// What the GPU reaches at best: bytes read and written by a large copy, and a product of 8192 x 8192
/// matrices, each a second.
struct Ceilings {
  double copy = 0, product = 0;
};

/// Between two events, on the device's clock.
class Interval {
 public:
  Interval() {
    cuda::check(cudaEventCreate(&begin_), "event");
    cuda::check(cudaEventCreate(&end_), "event");
  }
  Interval(const Interval&) = delete;
  Interval& operator=(const Interval&) = delete;
  ~Interval() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  template <class F>
  void around(cudaStream_t stream, F work) {
    cuda::check(cudaEventRecord(begin_, stream), "event");
    work();
    cuda::check(cudaEventRecord(end_, stream), "event");
  }
  double ms() const {
    float ms = 0;
    cuda::check(cudaEventElapsedTime(&ms, begin_, end_), "event");
    return static_cast<double>(ms);
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

class TimedCuda : public Cuda {
  using Base = Cuda;
  using S = BFloat16;

 public:
  /// Names of products by their [features out, features in].
  using Names = std::map<std::pair<Index, Index>, std::string>;

  using Base::Base;

  void name_products(Names names) { names_ = std::move(names); }
  /// What has been measured since the last call, by name.
  std::map<std::string, StepPart> take_parts() {
    synchronize();
    for (const auto& [part, interval] : intervals_) parts_[part].ms += interval.ms();
    intervals_.clear();
    return std::exchange(parts_, {});
  }

  void fill_zero(Out<float> x) {
    timed("zeroing gradients", bytes(x), [&] { Base::fill_zero(x); });
  }
  void sums_of_squares(std::span<const In<float>> tensors, std::span<double> sums) {
    double all = 0;
    for (const auto& tensor : tensors) all += bytes(tensor);
    timed("norm of the gradients", all, [&] { Base::sums_of_squares(tensors, sums); });
  }
  void embed(const op::Embed<S>& a) {
    timed("embedding", bytes(a.out) + row_bytes(a.table, a.ids), [&] { Base::embed(a); });
  }
  void embed_backward(const op::EmbedBackward<S, float>& a) {
    timed("embedding, backward", bytes(a.d_out) + 2 * row_bytes(a.d_table, a.ids),
          [&] { Base::embed_backward(a); });
  }
  void rms_norm(const op::RmsNorm<S, float>& a) {
    timed("norms", bytes(a.x, a.out, a.rstd), [&] { Base::rms_norm(a); });
  }
  void rms_norm_backward(const op::RmsNormBackward<S, float>& a) {
    timed("norms, backward", bytes(a.x, a.rstd, a.d_out, a.d_residual, a.d_x, a.normed),
          [&] { Base::rms_norm_backward(a); });
  }
  void linear(const op::Linear<S>& a) {
    product(a.weight, "", a.x.rows(), bytes(a.x, a.weight, a.bias, a.add, a.out), [&] { Base::linear(a); });
  }
  void linear_input_gradient(const op::LinearInputGradient<S>& a) {
    product(a.weight, ", input gradient", a.d_out.rows(), bytes(a.d_out, a.weight, a.d_x),
            [&] { Base::linear_input_gradient(a); });
  }
  void linear_weight_gradient(const op::LinearWeightGradient<S, float>& a) {
    product(a.d_weight, ", weight gradient", a.x.rows(), bytes(a.x, a.d_out) + added(a, a.d_weight),
            [&] { Base::linear_weight_gradient(a); });
  }
  void gated_mlp(const op::GatedMlp<S>& a) {
    timed("gated MLP's activation", bytes(a.gate_up, a.product), [&] { Base::gated_mlp(a); });
  }
  void gated_mlp_backward(const op::GatedMlpBackward<S>& a) {
    timed("gated MLP's activation, backward", 2 * bytes(a.gate_up, a.product),
          [&] { Base::gated_mlp_backward(a); });
  }
  void gated_linear(const op::GatedLinear<S>& a) {
    product(a.weight, " with activation", a.x.rows(), bytes(a.x, a.weight, a.gate_up, a.product),
            [&] { Base::gated_linear(a); });
  }
  void gated_linear_backward(const op::GatedLinearBackward<S>& a) {
    product(a.weight, ", input gradient with activation", a.d_out.rows(),
            bytes(a.d_out, a.weight, a.gate_up, a.gate_up, a.product),
            [&] { Base::gated_linear_backward(a); });
  }
  void sum_replicas(const op::SumReplicas<S>& a) {
    timed("layer 0's sum over replicas", bytes(a.x), [&] { Base::sum_replicas(a); });
  }
  void silu(const op::Silu<S>& a) {
    timed("aggregation", bytes(a.x, a.out), [&] { Base::silu(a); });
  }
  void silu_backward(const op::SiluBackward<S>& a) {
    timed("aggregation", bytes(a.x, a.d_out, a.d_x), [&] { Base::silu_backward(a); });
  }
  /// Logits are written once and read once for the loss, and where there are gradients read twice more.
  double head_loss(const op::HeadLoss<S, float>& a) {
    const double products = a.d_x ? 3 : 1, logits = real(a.x.rows()) * real(a.weight.rows()) * sizeof(S);
    double loss = 0;
    timed("vocabulary head, loss, its gradients", (a.d_x ? 5 : 2) * logits + added(a, a.d_weight),
          products * 2 * real(a.x.rows()) * real(a.weight.count()), [&] { loss = Base::head_loss(a); });
    return loss;
  }
  void adamw(std::span<const op::AdamW<S, float>> updates) {
    double all = 0;
    for (const auto& a : updates)
      all += 2 * bytes(a.weight, a.first, a.second) + bytes(a.gradient) + bytes(a.lent);
    timed("AdamW", all, [&] { Base::adamw(updates); });
  }

  template <int D>
  void rotate(Int<D> d, const op::Rotate<S>& a) {
    timed("rotary", 2 * real(a.x.rows()) * real(a.heads * D) * sizeof(S), [&] { Base::rotate(d, a); });
  }
  template <int D>
  void attend(Int<D> d, const op::Attend<S, float>& a) {
    timed("attention", attention_bytes(a), 4 * pairs(a) * D, [&] { Base::attend(d, a); });
  }
  template <int D>
  void attend_backward(Int<D> d, const op::AttendBackward<S, float>& a) {
    timed("attention, backward", attention_bytes(a) + bytes(a.d_out, a.d_qkv), 10 * pairs(a) * D,
          [&] { Base::attend_backward(d, a); });
  }
  template <int D, int P>
  void attend_expanded(Int<D> d, Int<P> p, const op::Attend<S, float>& a) {
    timed("attention", attention_bytes(a), 4 * pairs(a) * D, [&] { Base::attend_expanded(d, p, a); });
  }
  template <int D, int P>
  void attend_expanded_backward(Int<D> d, Int<P> p, const op::AttendBackward<S, float>& a) {
    timed("attention, backward", attention_bytes(a) + bytes(a.d_out, a.d_qkv), 10 * pairs(a) * D,
          [&] { Base::attend_expanded_backward(d, p, a); });
  }
  template <int D, int P>
  void attend_replicas(Int<D> d, Int<P> p, const op::AttendReplicas<S>& a) {
    timed("P x P attention", bytes(a.qkv, a.out), [&] { Base::attend_replicas(d, p, a); });
  }
  template <int D, int P>
  void attend_replicas_backward(Int<D> d, Int<P> p, const op::AttendReplicasBackward<S>& a) {
    timed("P x P attention, backward", bytes(a.qkv, a.d_out, a.d_qkv),
          [&] { Base::attend_replicas_backward(d, p, a); });
  }
  template <int P>
  void merge(Int<P> p, const op::Merge<S, float>& a) {
    timed("aggregation", bytes(a.streams, a.out), [&] { Base::merge(p, a); });
  }
  template <int P>
  void merge_backward(Int<P> p, const op::MergeBackward<S, float>& a) {
    timed("aggregation", bytes(a.streams, a.d_out, a.d_streams), [&] { Base::merge_backward(p, a); });
  }

 private:
  static double real(Index n) { return static_cast<double>(n); }
  template <class... T>
  static double bytes(const View<T>&... views) {
    return ((views.data != nullptr ? real(views.count()) * sizeof(T) : 0.0) + ... + 0.0);
  }
  template <class T>
  static double row_bytes(const View<T>& table, const In<Token>& ids) {
    return real(std::min(ids.count(), table.rows())) * real(table.cols()) * sizeof(T);
  }
  /// A result that is read before it is written, or not.
  template <class A, class T>
  static double added(const A& a, const View<T>& result) {
    return (a.accumulate ? 2 : 1) * bytes(result);
  }
  template <class A>
  static double attention_bytes(const A& a) {
    return bytes(a.qkv, a.prefix_k, a.prefix_v, a.out, a.log_sum);
  }
  /// Of queries and keys that see each other.
  template <class A>
  static double pairs(const A& a) {
    const double prefix = a.prefix_k ? real(a.prefix_k.extent[2]) : 0;
    return real(a.layout.rows() * a.heads) * (real(a.layout.tokens) / 2 + prefix);
  }

  template <class T, class F>
  void product(const View<T>& weight, const char* direction, Index rows, double all, F work) {
    const auto found = names_.find({weight.rows(), weight.cols()});
    timed((found == names_.end() ? "aggregation" : found->second + direction), all,
          2 * real(rows) * real(weight.count()), work);
  }
  template <class F>
  void timed(const std::string& name, double all, F work) {
    timed(name, all, 0, work);
  }
  template <class F>
  void timed(const std::string& name, double all, double flops, F work) {
    StepPart& part = parts_[name];
    ++part.calls;
    part.bytes += all;
    part.flops += flops;
    intervals_.emplace_back(std::piecewise_construct, std::tuple(name), std::tuple())
        .second.around(stream(), work);
  }

  Names names_;
  std::map<std::string, StepPart> parts_;
  std::deque<std::pair<std::string, Interval>> intervals_;
};

static_assert(Backend<TimedCuda>);

/// Medians of seven, of operands without structure. Products as the backend has chosen them.
inline Ceilings ceilings(Cuda& on) {
  constexpr Index n = 8192, large = Index{1} << 28;
  auto memory = on.allocate(2 * large * sizeof(float));
  auto* floats = reinterpret_cast<float*>(memory.data());
  auto* halves = reinterpret_cast<BFloat16*>(memory.data());
  const auto square = [&](Index i) { return Out<BFloat16>{halves + i * n * n, {n, n}}; };
  std::vector<float> noise(std::size_t{1} << 20);
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<float>(normal(7, 1, i));
  for (Index first = 0; first < 2 * n * n; first += Index{1} << 20) {
    const Out<float> aside{floats + large, {Index{1} << 20}};
    on.from_host(noise.data(), aside);
    on.round(aside, {halves + first, aside.extent});
  }
  const auto median = [&](auto work) {
    std::vector<double> times;
    for (int i = 0; i < 10; ++i) {
      Interval interval;
      interval.around(on.stream(), work);
      on.synchronize();
      if (i >= 3) times.push_back(interval.ms() * 1e-3);
    }
    std::nth_element(times.begin(), times.begin() + 3, times.end());
    return times[3];
  };
  const double product = median([&] { on.linear({.x = square(0), .weight = square(1), .out = square(2)}); });
  const double copy = median([&] { on.copy_wide({floats, {large}}, {floats + large, {large}}); });
  return {2.0 * large * sizeof(float) / copy, 2.0 * n * n * n / product};
}

}  // namespace parscale::bench
