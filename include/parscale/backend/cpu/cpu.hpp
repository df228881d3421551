/// The CPU backend: its own threads and its own loops for everything. Results have the same bits for any
/// number of threads.
#pragma once

#include <algorithm>
#include <memory>

#include "../backend.hpp"
#include "adamw.hpp"
#include "append.hpp"
#include "attend_replicas.hpp"
#include "attention.hpp"
#include "attention_backward.hpp"
#include "checks.hpp"
#include "embedding.hpp"
#include "head_loss.hpp"
#include "linear.hpp"
#include "memory.hpp"
#include "merge.hpp"
#include "pointwise.hpp"
#include "rms_norm.hpp"
#include "rotate.hpp"
#include "threads.hpp"

namespace parscale {

struct CpuOptions {
  int threads = 0;  ///< 0: all cores that the process may use
};

/// Operands that do not fit together: ConfigurationError. Tokens outside the vocabulary: InputError.
template <class T>
class Cpu {
 public:
  using Scalar = T;
  using Wide = T;
  using Buffer = cpu::Buffer;

  explicit Cpu(CpuOptions options = {})
      : state_(std::make_unique<State>(options.threads > 0 ? options.threads : cpu::usable_cores())) {
    cpu::keep_blas_on_one_thread();
  }

  int threads() const { return state_->threads.count(); }

  /// Scratch memory that this object comes to hold when a model of `shape` trains on `layout`: logits of a
  /// chunk or attention's tiles and partial prefix gradients, and the panels of a product.
  std::size_t scratch_bytes(const Shape& shape, const Layout& layout, int head_dim) const {
    const Index rows = cpu::head_loss_rows<T>(shape.vocabulary, layout.positions());
    const Index logits = rows * (shape.vocabulary + 2);
    const Index prefix =
        layout.replicas > 1 ? layout.replicas * shape.kv_heads * shape.prefix_tokens * head_dim : 0;
    const cpu::HeadPlaces at(layout, shape.heads, shape.kv_heads, head_dim, layout.replicas);
    const Index attention = std::max(threads() * cpu::AttendTile<T>::scratch_size(at),
                                     cpu::attend_backward_scratch<T>(at, prefix, threads()));
    return static_cast<std::size_t>(std::max(logits, attention) + cpu::PackedProduct<T>::scratch_size) *
           sizeof(T);
  }

  Buffer allocate(std::size_t bytes) { return Buffer(bytes); }
  template <class U>
  void to_host(View<U> in, std::remove_const_t<U>* host) {
    std::copy_n(in.data, in.count(), host);
  }
  template <class U>
  void from_host(const U* host, Out<U> out) {
    std::copy_n(host, out.count(), out.data);
  }

  // The operations of backend.hpp. Those that no architecture decides are defined below the class, so that a
  // program of many architectures can compile them once: `extern template class parscale::Cpu<float>;`.
  void fill_zero(Out<T> x);
  void copy(In<T> in, Out<T> out);
  void copy_wide(In<T> in, Out<T> out) { copy(in, out); }
  void round(In<T> in, Out<T> out) { copy(in, out); }
  void add_wide(In<T> x, Out<T> sum);  // sum += x
  void round_wide(In<T> in, Out<BFloat16> out);
  void widen(In<BFloat16> in, Out<T> out, bool add);  // out = in, or out += in
  double sum_of_squares(In<T> x);
  void sums_of_squares(std::span<const In<T>> tensors, std::span<double> sums);
  void embed(const op::Embed<T>& a);
  void embed_backward(const op::EmbedBackward<T, T>& a);
  void sum_replicas(const op::SumReplicas<T>& a);
  void rms_norm(const op::RmsNorm<T, T>& a);
  void rms_norm_backward(const op::RmsNormBackward<T, T>& a);
  void linear(const op::Linear<T>& a);
  void linear_input_gradient(const op::LinearInputGradient<T>& a);
  void linear_weight_gradient(const op::LinearWeightGradient<T, T>& a);
  void gated_mlp(const op::GatedMlp<T>& a);
  void gated_mlp_backward(const op::GatedMlpBackward<T>& a);
  void gated_linear(const op::GatedLinear<T>& a);
  void gated_linear_backward(const op::GatedLinearBackward<T>& a);
  void silu(const op::Silu<T>& a);
  void silu_backward(const op::SiluBackward<T>& a);
  double head_loss(const op::HeadLoss<T, T>& a);
  void logits(const op::Logits<T, T>& a) { linear({.x = a.x, .weight = a.weight, .out = a.out}); }
  void adamw(const op::AdamW<T, T>& a);
  void adamw(std::span<const op::AdamW<T, T>> updates) {
    for (const auto& update : updates) adamw(update);
  }

  template <int D>
  void rotate(Int<D>, const op::Rotate<T>& a) {
    rotate_heads(D, a);
  }
  template <int D>
  void append(Int<D>, const op::Append<T>& a) {
    append_heads(D, a);
  }
  template <int D>
  void attend(Int<D>, const op::Attend<T, T>& a) {
    attend_heads("attend", D, 1, a);
  }
  template <int D>
  void attend_backward(Int<D>, const op::AttendBackward<T, T>& a) {
    attend_heads_backward("attend_backward", D, 1, a);
  }
  template <int D, int P>
  void attend_expanded(Int<D>, Int<P>, const op::Attend<T, T>& a) {
    attend_heads("attend_expanded", D, P, a);
  }
  template <int D, int P>
  void attend_expanded_backward(Int<D>, Int<P>, const op::AttendBackward<T, T>& a) {
    attend_heads_backward("attend_expanded_backward", D, P, a);
  }
  template <int D, int P>
  void attend_replicas(Int<D>, Int<P>, const op::AttendReplicas<T>& a) {
    cpu::check(D, P, a);
    cpu::attend_replicas<P>(pool(), D, a);
  }
  template <int D, int P>
  void attend_replicas_backward(Int<D>, Int<P>, const op::AttendReplicasBackward<T>& a) {
    cpu::check(D, P, a);
    cpu::attend_replicas_backward<P>(pool(), D, a);
  }
  template <int P>
  void merge(Int<P>, const op::Merge<T, T>& a) {
    cpu::check(P, a);
    cpu::merge<P>(pool(), a);
  }
  template <int P>
  void merge_backward(Int<P>, const op::MergeBackward<T, T>& a) {
    cpu::check(P, a);
    cpu::merge_backward<P>(pool(), a);
  }

 private:
  struct State {
    explicit State(int count) : threads(count) {}
    cpu::Threads threads;
    cpu::Scratch scratch, panels;
    cpu::RotaryTable<T> rotary, replica_rotary;
  };

  void rotate_heads(int D, const op::Rotate<T>& a);
  void append_heads(int D, const op::Append<T>& a);
  // P = 1 attends within a stream; P > 1 expands to the other replicas.
  void attend_heads(const char* operation, int D, int P, const op::Attend<T, T>& a);
  void attend_heads_backward(const char* operation, int D, int P, const op::AttendBackward<T, T>& a);

  cpu::Threads& pool() { return state_->threads; }
  cpu::Scratch& scratch() { return state_->scratch; }

  std::unique_ptr<State> state_;
};

template <class T>
void Cpu<T>::fill_zero(Out<T> x) {
  cpu::fill_zero(pool(), x);
}

template <class T>
void Cpu<T>::copy(In<T> in, Out<T> out) {
  Operands("copy").vector("out", out, in.count());
  cpu::copy(pool(), in.data, out.data, in.count());
}

template <class T>
void Cpu<T>::add_wide(In<T> x, Out<T> sum) {
  Operands("add_wide").vector("sum", sum, x.count());
  cpu::add(pool(), x.data, sum.data, x.count());
}

template <class T>
void Cpu<T>::round_wide(In<T> in, Out<BFloat16> out) {
  Operands("round_wide").vector("out", out, in.count());
  cpu::round_wide(pool(), in.data, out.data, in.count());
}

template <class T>
void Cpu<T>::widen(In<BFloat16> in, Out<T> out, bool add) {
  Operands("widen").vector("out", out, in.count());
  cpu::widen(pool(), in.data, out.data, in.count(), add);
}

template <class T>
double Cpu<T>::sum_of_squares(In<T> x) {
  return cpu::sum_of_squares(pool(), x);
}

template <class T>
void Cpu<T>::sums_of_squares(std::span<const In<T>> tensors, std::span<double> sums) {
  for (std::size_t i = 0; i < tensors.size(); ++i) sums[i] = sum_of_squares(tensors[i]);
}

template <class T>
void Cpu<T>::embed(const op::Embed<T>& a) {
  cpu::check(a);
  cpu::check_tokens("embed", a.ids, a.table.rows(), false);
  cpu::embed(pool(), a);
}

template <class T>
void Cpu<T>::embed_backward(const op::EmbedBackward<T, T>& a) {
  cpu::check(a);
  if (a.d_table) cpu::check_tokens("embed_backward", a.ids, a.d_table.rows(), false);
  cpu::embed_backward(pool(), a);
}

template <class T>
void Cpu<T>::sum_replicas(const op::SumReplicas<T>& a) {
  cpu::check(a);
  cpu::sum_replicas(pool(), a);
}

template <class T>
void Cpu<T>::rms_norm(const op::RmsNorm<T, T>& a) {
  cpu::check(a);
  cpu::rms_norm(pool(), a);
}

template <class T>
void Cpu<T>::rms_norm_backward(const op::RmsNormBackward<T, T>& a) {
  cpu::check(a);
  cpu::rms_norm_backward(pool(), scratch(), a);
}

template <class T>
void Cpu<T>::linear(const op::Linear<T>& a) {
  cpu::check(a);
  cpu::linear(pool(), state_->panels, a);
}

template <class T>
void Cpu<T>::linear_input_gradient(const op::LinearInputGradient<T>& a) {
  cpu::check(a);
  cpu::linear_input_gradient(pool(), state_->panels, a);
}

template <class T>
void Cpu<T>::linear_weight_gradient(const op::LinearWeightGradient<T, T>& a) {
  cpu::check(a);
  cpu::linear_weight_gradient(pool(), state_->panels, a);
}

template <class T>
void Cpu<T>::gated_mlp(const op::GatedMlp<T>& a) {
  cpu::check(a);
  cpu::gated_mlp(pool(), a);
}

template <class T>
void Cpu<T>::gated_mlp_backward(const op::GatedMlpBackward<T>& a) {
  cpu::check(a);
  cpu::gated_mlp_backward(pool(), a);
}

template <class T>
void Cpu<T>::gated_linear(const op::GatedLinear<T>& a) {
  cpu::check(a);
  linear({.x = a.x, .weight = a.weight, .out = a.gate_up});
  gated_mlp({.gate_up = a.gate_up, .product = a.product});
}

template <class T>
void Cpu<T>::gated_linear_backward(const op::GatedLinearBackward<T>& a) {
  cpu::check(a);
  linear_input_gradient({.d_out = a.d_out, .weight = a.weight, .d_x = a.product});
  gated_mlp_backward({.gate_up = a.gate_up, .product = a.product});
}

template <class T>
void Cpu<T>::silu(const op::Silu<T>& a) {
  cpu::check(a);
  cpu::silu(pool(), a);
}

template <class T>
void Cpu<T>::silu_backward(const op::SiluBackward<T>& a) {
  cpu::check(a);
  cpu::silu_backward(pool(), a);
}

template <class T>
double Cpu<T>::head_loss(const op::HeadLoss<T, T>& a) {
  cpu::check(a);
  cpu::check_tokens("head_loss", a.targets, a.weight.rows(), true);
  return cpu::head_loss(pool(), scratch(), state_->panels, a);
}

template <class T>
void Cpu<T>::adamw(const op::AdamW<T, T>& a) {
  cpu::check(a);
  cpu::adamw(pool(), a);
}

template <class T>
void Cpu<T>::rotate_heads(int D, const op::Rotate<T>& a) {
  cpu::check(D, a);
  cpu::rotate(pool(), a.by_replica ? state_->replica_rotary : state_->rotary, D, a);
}

template <class T>
void Cpu<T>::append_heads(int D, const op::Append<T>& a) {
  cpu::check(D, a);
  cpu::check_places("append", a.layout, a.keys.extent[2]);
  cpu::append(pool(), D, a);
}

template <class T>
void Cpu<T>::attend_heads(const char* operation, int D, int P, const op::Attend<T, T>& a) {
  cpu::check(operation, D, P, a);
  cpu::check_places(operation, a.layout, a.keys.extent[2]);
  cpu::attend(pool(), scratch(), D, P, a);
}

template <class T>
void Cpu<T>::attend_heads_backward(const char* operation, int D, int P, const op::AttendBackward<T, T>& a) {
  cpu::check(operation, D, P, a);
  cpu::check_places(operation, a.layout, 0);
  cpu::attend_backward(pool(), scratch(), D, P, a);
  if (a.rotary_theta != 0) rotate_heads(D, before_rotation(a));
}

static_assert(Backend<Cpu<float>>);
static_assert(Backend<Cpu<double>>);

}  // namespace parscale
