/// What the operands of each operation must look like, on any backend. Every check names the operation and
/// the shapes; what the tensors hold is looked at only by a backend that can read it from the host.
#pragma once

#include "backend.hpp"
#include "operands.hpp"

namespace parscale::op {

template <class S>
void check(const Embed<S>& a) {
  const Index rows = a.out.rows(), hidden = a.table.cols(), replicas = a.replica_embedding.rows();
  const Operands on("embed");
  on.matrix("out", a.out, rows, hidden)
      .rule(a.ids.count() > 0 ? rows % a.ids.count() == 0 : rows == 0, "out has ", rows, " rows for ",
            a.ids.extent, " ids");
  if (a.replica_embedding)
    on.matrix("replica_embedding", a.replica_embedding, replicas, hidden)
        .rule(rows % replicas == 0, "the rows of out do not divide into the replicas of replica_embedding");
}
template <class S, class W>
void check(const EmbedBackward<S, W>& a) {
  const Index rows = a.d_out.rows(), hidden = a.d_out.cols(), replicas = a.d_replica_embedding.rows();
  const Operands on("embed_backward");
  on.rule(a.ids.count() > 0 ? rows % a.ids.count() == 0 : rows == 0, "d_out has ", rows, " rows for ",
          a.ids.extent, " ids")
      .optional_matrix("d_table", a.d_table, a.d_table.rows(), hidden);
  if (a.d_replica_embedding)
    on.matrix("d_replica_embedding", a.d_replica_embedding, replicas, hidden)
        .rule(rows % replicas == 0,
              "the rows of d_out do not divide into the replicas of d_replica_embedding");
}
template <class S, class W>
void check(const RmsNorm<S, W>& a) {
  const Index rows = a.x.rows(), hidden = a.x.cols();
  Operands("rms_norm")
      .vector("gain", a.gain, hidden)
      .vector("rstd", a.rstd, rows)
      .rule(a.interleave >= 1 && rows % a.interleave == 0, "the rows of x do not divide by interleave")
      .vector("out", a.out, rows * hidden);
}
template <class S, class W>
void check(const RmsNormBackward<S, W>& a) {
  const Index rows = a.x.rows(), hidden = a.x.cols();
  Operands("rms_norm_backward")
      .vector("gain", a.gain, hidden)
      .vector("rstd", a.rstd, rows)
      .rule(a.interleave >= 1 && rows % a.interleave == 0, "the rows of x do not divide by interleave")
      .vector("d_out", a.d_out, rows * hidden)
      .optional_matrix("d_residual", a.d_residual, rows, hidden)
      .matrix("d_x", a.d_x, rows, hidden)
      .optional_vector("d_gain", a.d_gain, hidden)
      .optional_matrix("normed", a.normed, rows, hidden);
}
template <class S>
void check(const Linear<S>& a) {
  const Index rows = a.x.rows(), n = a.weight.rows();
  Operands("linear")
      .matrix("weight", a.weight, n, a.x.cols())
      .optional_vector("bias", a.bias, n)
      .optional_matrix("add", a.add, rows, n)
      .matrix("out", a.out, rows, n);
}
template <class S>
void check(const LinearInputGradient<S>& a) {
  Operands("linear_input_gradient")
      .matrix("d_out", a.d_out, a.d_x.rows(), a.weight.rows())
      .matrix("d_x", a.d_x, a.d_out.rows(), a.weight.cols());
}
template <class S, class W>
void check(const LinearWeightGradient<S, W>& a) {
  const Index n = a.d_weight ? a.d_weight.rows() : a.d_bias.count();
  Operands("linear_weight_gradient")
      .matrix("d_out", a.d_out, a.x.rows(), a.d_out.cols())
      .rule(a.first_column >= 0 && a.first_column + n <= a.d_out.cols(), "columns ", a.first_column, " to ",
            a.first_column + n, " lie outside d_out ", a.d_out.extent)
      .optional_matrix("d_weight", a.d_weight, n, a.x.cols())
      .optional_vector("d_bias", a.d_bias, n);
}

/// The layout itself, and that tensors of `rows` rows have its rows.
inline void check(const Operands& on, const Layout& layout) {
  on.rule(layout.sequences >= 0 && layout.tokens >= 0 && layout.replicas >= 1,
          "the layout has negative sizes")
      .optional_vector("layout.past", layout.past, layout.sequences)
      .optional_vector("layout.starts", layout.starts, layout.positions())
      .rule(!(layout.past && layout.starts), "layout.past and layout.starts are given together");
}
template <class S>
void check(const SumReplicas<S>& a) {
  const Operands on("sum_replicas");
  check(on, a.layout);
  on.matrix("x", a.x, a.layout.rows(), a.x.cols());
}
template <class S>
void check(Index head_dim, const Rotate<S>& a) {
  const Operands on("rotate");
  check(on, a.layout);
  on.matrix("x", a.x, a.layout.rows(), a.x.cols())
      .rule(head_dim % 2 == 0 && a.heads * head_dim <= a.x.cols(), a.heads, " heads of ", head_dim,
            " do not fit into x ", a.x.extent);
}

/// Sizes that all attention operations share.
template <class A>
void check_heads(const Operands& on, Index head_dim, const A& a) {
  check(on, a.layout);
  on.rule(a.kv_heads >= 1 && a.heads >= 1 && a.heads % a.kv_heads == 0, a.heads, " heads cannot share ",
          a.kv_heads, " key/value heads")
      .matrix("qkv", a.qkv, a.layout.rows(), (a.heads + 2 * a.kv_heads) * head_dim);
}
template <class T>
void check_cache(const Operands& on, Index head_dim, const Layout& layout, Index kv_heads,
                 const View<T>& keys, const View<T>& values) {
  const Index capacity = keys.extent[2];
  const Extent wanted{layout.replicas * layout.sequences, kv_heads, capacity, head_dim};
  on.tensor("keys", keys, wanted)
      .tensor("values", values, wanted)
      .rule(layout.tokens <= capacity, "each sequence gets ", layout.tokens, " tokens, the cache holds ",
            capacity);
}
template <class A>
void check_prefix(const Operands& on, Index head_dim, const A& a) {
  if (!a.prefix_k) return on.rule(!a.prefix_v, "prefix_v is given without prefix_k"), void();
  const Extent wanted{a.layout.replicas, a.kv_heads, a.prefix_k.extent[2], head_dim};
  on.tensor("prefix_k", a.prefix_k, wanted).tensor("prefix_v", a.prefix_v, wanted);
}
template <class S>
void check(Index head_dim, const Append<S>& a) {
  const Operands on("append");
  check_heads(on, head_dim, a);
  check_cache(on, head_dim, a.layout, a.kv_heads, a.keys, a.values);
}
template <class S, class W>
void check(const char* name, Index head_dim, Index sources, const Attend<S, W>& a) {
  const Operands on(name);
  check_heads(on, head_dim, a);
  check_prefix(on, head_dim, a);
  if (a.keys || a.values)
    check_cache(on, head_dim, a.layout, a.kv_heads, a.keys, a.values);
  else
    on.rule(!a.layout.past, "layout.past is given without the cache that holds those tokens");
  on.rule(sources == 1 || sources == a.layout.replicas, "the layout has another number of replicas")
      .matrix("out", a.out, a.layout.rows(), sources * a.heads * head_dim)
      .optional_matrix("log_sum", a.log_sum, a.layout.rows(), a.heads);
}
template <class S, class W>
void check(const char* name, Index head_dim, Index sources, const AttendBackward<S, W>& a) {
  const Operands on(name);
  check_heads(on, head_dim, a);
  check_prefix(on, head_dim, a);
  const Index rows = a.layout.rows(), features = sources * a.heads * head_dim;
  on.rule(!a.layout.past, "layout.past is given, but gradients through a cache are not defined")
      .rule(sources == 1 || sources == a.layout.replicas, "the layout has another number of replicas")
      .matrix("out", a.out, rows, features)
      .matrix("log_sum", a.log_sum, rows, a.heads)
      .matrix("d_out", a.d_out, rows, features)
      .matrix("d_qkv", a.d_qkv, rows, a.qkv.cols());
  if (a.d_prefix_k) on.tensor("d_prefix_k", a.d_prefix_k, a.prefix_k.extent);
  if (a.d_prefix_v) on.tensor("d_prefix_v", a.d_prefix_v, a.prefix_v.extent);
}
template <class S>
void check(Index head_dim, int replicas, const AttendReplicas<S>& a) {
  const Operands on("attend_replicas");
  check_heads(on, head_dim, a);
  on.rule(replicas == a.layout.replicas, "the layout has another number of replicas")
      .matrix("out", a.out, a.layout.rows(), a.heads * head_dim);
}
template <class S>
void check(Index head_dim, int replicas, const AttendReplicasBackward<S>& a) {
  const Operands on("attend_replicas_backward");
  check_heads(on, head_dim, a);
  on.rule(replicas == a.layout.replicas, "the layout has another number of replicas")
      .matrix("d_out", a.d_out, a.layout.rows(), a.heads * head_dim)
      .matrix("d_qkv", a.d_qkv, a.layout.rows(), a.qkv.cols());
}
template <class S>
void check(const GatedMlp<S>& a) {
  Operands("gated_mlp").matrix("gate_up", a.gate_up, a.product.rows(), 2 * a.product.cols());
}
template <class S>
void check(const GatedMlpBackward<S>& a) {
  Operands("gated_mlp_backward").matrix("gate_up", a.gate_up, a.product.rows(), 2 * a.product.cols());
}
template <class S>
void check(const GatedLinear<S>& a) {
  const Index width = a.product.cols();
  Operands("gated_linear")
      .matrix("weight", a.weight, 2 * width, a.x.cols())
      .matrix("gate_up", a.gate_up, a.x.rows(), 2 * width)
      .matrix("product", a.product, a.x.rows(), width);
}
template <class S>
void check(const GatedLinearBackward<S>& a) {
  const Index width = a.product.cols();
  Operands("gated_linear_backward")
      .matrix("weight", a.weight, a.d_out.cols(), width)
      .matrix("gate_up", a.gate_up, a.d_out.rows(), 2 * width)
      .matrix("product", a.product, a.d_out.rows(), width);
}
template <class S>
void check(const Silu<S>& a) {
  Operands("silu").vector("out", a.out, a.x.count());
}
template <class S>
void check(const SiluBackward<S>& a) {
  Operands("silu_backward").vector("d_out", a.d_out, a.x.count()).vector("d_x", a.d_x, a.x.count());
}
template <class S, class W>
void check(int replicas, const Merge<S, W>& a) {
  const Index n = a.out.rows();
  Operands("merge")
      .vector("streams", a.streams, a.out.count() * replicas)
      .matrix("scores", a.scores, n, replicas)
      .matrix("weights", a.weights, n, replicas);
}
template <class S, class W>
void check(int replicas, const MergeBackward<S, W>& a) {
  const Index n = a.d_out.rows();
  Operands("merge_backward")
      .vector("streams", a.streams, a.d_out.count() * replicas)
      .matrix("weights", a.weights, n, replicas)
      .vector("d_streams", a.d_streams, a.d_out.count() * replicas)
      .matrix("d_scores", a.d_scores, n, replicas);
}
template <class S, class W>
void check(const HeadLoss<S, W>& a) {
  const Index n = a.x.rows(), hidden = a.x.cols(), vocabulary = a.weight.rows();
  Operands("head_loss")
      .matrix("weight", a.weight, vocabulary, hidden)
      .vector("targets", a.targets, n)
      .optional_matrix("d_x", a.d_x, n, hidden)
      .optional_matrix("d_weight", a.d_weight, vocabulary, hidden);
}
template <class S, class W>
void check(const AdamW<S, W>& a) {
  const Index n = a.weight.count();
  Operands("adamw")
      .vector("gradient", a.gradient, n)
      .vector("first", a.first, n)
      .vector("second", a.second, n)
      .optional_vector("lent", a.lent, n)
      .rule(a.step >= 1, "step is ", a.step, ", the first is 1");
}
template <class S, class W>
void check(const Logits<S, W>& a) {
  Operands("logits")
      .matrix("weight", a.weight, a.weight.rows(), a.x.cols())
      .matrix("out", a.out, a.x.rows(), a.weight.rows());
}

}  // namespace parscale::op
