/// What a backend owes the model: the complete list of operations, each one struct of operands.
///
/// A backend is an object that owns its threads or stream and its scratch memory. Operations are members that
/// take one struct: on.rms_norm({.x = x, .gain = w.weight, ...}). Operands without `= {}` are mandatory.
///   S  the type that activations and lent weights have (Backend::Scalar)
///   W  the wide type of gradients, master weights and statistics (Backend::Wide); the same on the CPU
/// Axes: P replicas, B sequences, S tokens, M = P*B*S rows ordered [P,B,S], N = B*S, H hidden, I
/// intermediate, A query heads, G key/value heads, D head size, T prefix tokens, C cache capacity, V
/// vocabulary. "added to" means out += result, or out = result where `accumulate` is false; everything else
/// overwrites. Operands may alias only where that is said.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "../core/tensor.hpp"

namespace parscale {

/// A token's number in the vocabulary.
using Token = std::int32_t;

template <class B>
using Scalar = typename B::Scalar;
template <class B>
using Wide = typename B::Wide;

/// Where the tokens of a batch stand. Token i of sequence b has the position past[b] + i - starts[b,i] and
/// sees its document's tokens up to itself: the keys starts[b,i] ... past[b] + i of its sequence, and the
/// prefix.
struct Layout {
  Index sequences = 0;  ///< B
  Index tokens = 0;     ///< S
  int replicas = 1;     ///< P
  In<Index> past = {};  ///< [B] tokens already in the cache; absent: none
  In<std::int32_t> starts =
      {};  ///< [B,S] first token of each token's document; absent: 0. Not together with past

  constexpr Index positions() const { return sequences * tokens; }        ///< N
  constexpr Index rows() const { return replicas * sequences * tokens; }  ///< M
};

namespace op {

/// out[r,b,s] = table[ids] + replica_embedding[r]
template <class S>
struct Embed {
  In<Token> ids;                 ///< [B,S], or [P,B,S] when every replica has its own
  In<S> table;                   ///< [V,H]
  In<S> replica_embedding = {};  ///< [P,H]
  Out<S> out;                    ///< [P*B*S,H]
};
template <class S, class W = S>
struct EmbedBackward {
  In<Token> ids;
  In<S> d_out;                      ///< [P*B*S,H]
  Out<W> d_table = {};              ///< [V,H], added to
  Out<W> d_replica_embedding = {};  ///< [P,H], added to
  bool accumulate = true;
};

/// x[n] = the sum over r of x[r*N + n]: the gradient of rows that every replica got a copy of.
template <class S>
struct SumReplicas {
  Layout layout;
  Out<S> x;  ///< [M,H]; the first N rows are written
};

/// out = gain * x * rstd, rstd = 1 / sqrt(mean(x^2) + eps). With interleave = P the P rows of a position are
/// written side by side, replica fastest: out [N,H,P], what the aggregation reads as one row of H*P features.
template <class S, class W = S>
struct RmsNorm {
  In<S> x;     ///< [M,H]
  In<S> gain;  ///< [H]
  double eps;
  Index interleave = 1;
  Out<S> out;   ///< [M,H], or [N,H,P]
  Out<W> rstd;  ///< [M]
};
template <class S, class W = S>
struct RmsNormBackward {
  In<S> x, gain;
  In<W> rstd;
  In<S> d_out;
  Index interleave = 1;
  In<S> d_residual = {};  ///< [M,H], what reaches x past the norm; may be d_x
  Out<S> d_x;             ///< [M,H] = d_residual + through the norm
  Out<W> d_gain = {};     ///< [H], added to
  Out<S> normed = {};     ///< [M,H] gain * x * rstd once more, for a weight gradient that reads it next
  bool accumulate = true;
};

/// out = x weight^T + bias + add
template <class S>
struct Linear {
  In<S> x;          ///< [M,K]
  In<S> weight;     ///< [N,K]
  In<S> bias = {};  ///< [N]
  In<S> add = {};   ///< [M,N], may be out
  Out<S> out;       ///< [M,N]
};
/// d_x = d_out weight, or added to
template <class S>
struct LinearInputGradient {
  In<S> d_out;   ///< [M,N]
  In<S> weight;  ///< [N,K]
  Out<S> d_x;    ///< [M,K]
  bool accumulate = false;
};
/// d_weight = d_out[:, first_column ...]^T x, d_bias = column sums of the same columns, or added to
template <class S, class W = S>
struct LinearWeightGradient {
  In<S> x;      ///< [M,K]
  In<S> d_out;  ///< [M,N'], N' >= first_column + N
  Index first_column = 0;
  Out<W> d_weight = {};  ///< [N,K]
  Out<W> d_bias = {};    ///< [N]
  bool accumulate = true;
};

/// Half-split rotary embedding of the first `heads` heads of each row, in place; the angle of feature d is
/// position * theta^(-2d/D), computed in float64.
template <class S>
struct Rotate {
  Layout layout;
  Out<S> x;  ///< [M, at least heads*D]
  Index heads;
  double theta;
  bool by_replica = false;  ///< the position is the replica's index
  bool inverse = false;     ///< the backward: rotate the other way
};

/// Copies the keys and values of a batch's rows to their places past[b] + i in the cache.
template <class S>
struct Append {
  Layout layout;
  Index heads, kv_heads;
  In<S> qkv;            ///< [M,(A+2G)*D]
  Out<S> keys, values;  ///< [P*B,G,C,D]
};

/// out = softmax(q [prefix_k k]^T / sqrt(D)) [prefix_v v], causal, query heads in groups of A/G.
/// Expanded: one softmax over these and the other replicas' keys at the query's own position; the result is
/// kept apart by the replica that the values came from (features o*A*D + a*D + d).
template <class S, class W = S>
struct Attend {
  Layout layout;
  Index heads, kv_heads;
  In<S> qkv;                           ///< [M,(A+2G)*D]
  In<S> keys = {}, values = {};        ///< [P*B,G,C,D] cache that holds them; absent: those inside qkv
  In<S> prefix_k = {}, prefix_v = {};  ///< [P,G,T,D]
  Out<S> out;                          ///< [M,A*D], expanded [M,P*A*D]
  Out<W> log_sum = {};                 ///< [M,A] log of the softmax's denominator, for the backward
};
template <class S, class W = S>
struct AttendBackward {
  Layout layout;
  Index heads, kv_heads;
  In<S> qkv;
  In<S> prefix_k = {}, prefix_v = {};
  In<S> out;
  In<W> log_sum;
  In<S> d_out;
  Out<S> d_qkv;                             ///< [M,(A+2G)*D]
  Out<W> d_prefix_k = {}, d_prefix_v = {};  ///< [P,G,T,D], added to
  bool accumulate = true;
  double rotary_theta = 0;  ///< not 0: q and k were rotated by it, and d_qkv is the gradient before that
};

/// What takes the gradients of rotated queries and keys to those before the rotation.
template <class S, class W>
Rotate<S> before_rotation(const AttendBackward<S, W>& a) {
  return {.layout = a.layout,
          .x = a.d_qkv,
          .heads = a.heads + a.kv_heads,
          .theta = a.rotary_theta,
          .inverse = true};
}

/// The P replicas of one position attend to each other: P x P softmax, no mask.
template <class S>
struct AttendReplicas {
  Layout layout;
  Index heads, kv_heads;
  In<S> qkv;   ///< [M,(A+2G)*D]
  Out<S> out;  ///< [M,A*D]
};
template <class S>
struct AttendReplicasBackward {
  Layout layout;
  Index heads, kv_heads;
  In<S> qkv, d_out;
  Out<S> d_qkv;  ///< [M,(A+2G)*D]
};

/// product = silu(gate) * up
template <class S>
struct GatedMlp {
  In<S> gate_up;   ///< [M,2*I], gate first
  Out<S> product;  ///< [M,I]
};
/// Both operands are replaced: gate_up by its gradient, the product's gradient by the product itself, which
/// the down projection's weight gradient reads next. One pass, no further memory.
template <class S>
struct GatedMlpBackward {
  Out<S> gate_up;  ///< [M,2*I] in: gate, up; out: their gradients
  Out<S> product;  ///< [M,I] in: its gradient; out: the product
};

/// gate_up = x weight^T, product = silu(gate) * up: a linear layer and the activation after it.
template <class S>
struct GatedLinear {
  In<S> x;         ///< [M,H]
  In<S> weight;    ///< [2*I,H], gate first
  Out<S> gate_up;  ///< [M,2*I]
  Out<S> product;  ///< [M,I]
};
/// GatedMlpBackward where the product went on as out = product weight^T, whose gradient is given: its own is
/// d_out weight.
template <class S>
struct GatedLinearBackward {
  In<S> d_out;     ///< [M,H]
  In<S> weight;    ///< [H,I]
  Out<S> gate_up;  ///< [M,2*I] in: gate, up; out: their gradients
  Out<S> product;  ///< [M,I] out: the product
};

template <class S>
struct Silu {
  In<S> x;
  Out<S> out;
};
template <class S>
struct SiluBackward {
  In<S> x, d_out;
  Out<S> d_x;  ///< may be d_out
};

/// weights = softmax(scores); out = sum over replicas of streams * (weights (1 - smoothing) + smoothing / P)
template <class S, class W = S>
struct Merge {
  In<S> streams;  ///< [N,H,P]
  In<S> scores;   ///< [N,P]
  double smoothing;
  Out<W> weights;  ///< [N,P], before smoothing
  Out<S> out;      ///< [N,H]
};
template <class S, class W = S>
struct MergeBackward {
  In<S> streams;
  In<W> weights;
  double smoothing;
  In<S> d_out;       ///< [N,H]
  Out<S> d_streams;  ///< [N,H,P]
  Out<S> d_scores;   ///< [N,P]
};

/// Sum of -log softmax(x weight^T)[target] * scale over the positions whose target is not negative, and its
/// gradients when asked for. The logits of all positions never exist at once: the backend decides how many
/// rows of them are alive.
template <class S, class W = S>
struct HeadLoss {
  In<S> x;               ///< [N,H]
  In<S> weight;          ///< [V,H]
  In<Token> targets;     ///< [N], negative: does not count
  double scale;          ///< one over the number of positions that count in the global batch
  Out<S> d_x = {};       ///< [N,H]
  Out<W> d_weight = {};  ///< [V,H], added to
  bool accumulate = true;
};

/// out = x weight^T, in the wide type: what sampling and evaluation read.
template <class S, class W = S>
struct Logits {
  In<S> x;       ///< [N,H]
  In<S> weight;  ///< [V,H]
  Out<W> out;    ///< [N,V]
};

/// AdamW on `weight`: gradients are multiplied by gradient_scale (clipping) first; decoupled weight decay.
template <class S, class W = S>
struct AdamW {
  Out<W> weight;
  In<W> gradient;
  Out<W> first, second;  ///< moments
  Out<S> lent = {};      ///< receives the new weight rounded, where blocks compute in a narrower type
  double learning_rate, beta1, beta2, epsilon, weight_decay;
  double gradient_scale = 1;
  Index step;  ///< 1 for the first update: bias correction
};

}  // namespace op

/// The list itself. `allocate` returns an owner with `std::byte* data()`; views into it die with it.
/// Operations may run later (a stream); `to_host` and operations that give the host numbers wait for what
/// came before. `round` converts from the wide type; `sums_of_squares` fills one number a tensor; `adamw`
/// updates many tensors in one call.
template <class B>
concept Backend = requires(B& on, std::size_t bytes, In<Scalar<B>> in, Out<Scalar<B>> out, In<Wide<B>> wide,
                           Out<Wide<B>> wide_out, Wide<B>* host, const Wide<B>* const_host,
                           std::span<const In<Wide<B>>> tensors, std::span<double> sums,
                           std::span<const op::AdamW<Scalar<B>, Wide<B>>> updates) {
  typename B::Buffer;
  { on.allocate(bytes) } -> std::same_as<typename B::Buffer>;
  {on.fill_zero(wide_out)};
  {on.copy(in, out)};
  {on.copy_wide(wide, wide_out)};
  {on.to_host(wide, host)};
  {on.from_host(const_host, wide_out)};
  {on.round(wide, out)};
  {on.sums_of_squares(tensors, sums)};
  {on.embed(op::Embed<Scalar<B>>{})};
  {on.embed_backward(op::EmbedBackward<Scalar<B>, Wide<B>>{})};
  {on.sum_replicas(op::SumReplicas<Scalar<B>>{})};
  {on.rms_norm(op::RmsNorm<Scalar<B>, Wide<B>>{})};
  {on.rms_norm_backward(op::RmsNormBackward<Scalar<B>, Wide<B>>{})};
  {on.linear(op::Linear<Scalar<B>>{})};
  {on.linear_input_gradient(op::LinearInputGradient<Scalar<B>>{})};
  {on.linear_weight_gradient(op::LinearWeightGradient<Scalar<B>, Wide<B>>{})};
  {on.rotate(Int<64>{}, op::Rotate<Scalar<B>>{})};
  {on.append(Int<64>{}, op::Append<Scalar<B>>{})};
  {on.attend(Int<64>{}, op::Attend<Scalar<B>, Wide<B>>{})};
  {on.attend_backward(Int<64>{}, op::AttendBackward<Scalar<B>, Wide<B>>{})};
  {on.attend_expanded(Int<64>{}, Int<4>{}, op::Attend<Scalar<B>, Wide<B>>{})};
  {on.attend_expanded_backward(Int<64>{}, Int<4>{}, op::AttendBackward<Scalar<B>, Wide<B>>{})};
  {on.attend_replicas(Int<64>{}, Int<4>{}, op::AttendReplicas<Scalar<B>>{})};
  {on.attend_replicas_backward(Int<64>{}, Int<4>{}, op::AttendReplicasBackward<Scalar<B>>{})};
  {on.gated_mlp(op::GatedMlp<Scalar<B>>{})};
  {on.gated_mlp_backward(op::GatedMlpBackward<Scalar<B>>{})};
  {on.gated_linear(op::GatedLinear<Scalar<B>>{})};
  {on.gated_linear_backward(op::GatedLinearBackward<Scalar<B>>{})};
  {on.silu(op::Silu<Scalar<B>>{})};
  {on.silu_backward(op::SiluBackward<Scalar<B>>{})};
  {on.merge(Int<4>{}, op::Merge<Scalar<B>, Wide<B>>{})};
  {on.merge_backward(Int<4>{}, op::MergeBackward<Scalar<B>, Wide<B>>{})};
  { on.head_loss(op::HeadLoss<Scalar<B>, Wide<B>>{}) } -> std::same_as<double>;
  {on.logits(op::Logits<Scalar<B>, Wide<B>>{})};
  {on.adamw(updates)};
};

}  // namespace parscale
