/// Self-attention with a learned prefix: softmax(q [prefix_k k]^T / sqrt(D)) [prefix_v v], causal, grouped
/// query heads, rotary positions; projected and added to the residual stream. In a layer that crosses,
/// `expanded` also sees the other replicas at its own position and keeps the result apart by source replica.
#pragma once

#include "prefix_cache.hpp"
#include "projection.hpp"

namespace parscale {

template <Architecture arch, class B>
struct SelfAttention {
  using S = Scalar<B>;
  using W = Wide<B>;
  using Prefix = PrefixCache<arch, B>;
  static constexpr Index D = arch.head_dim, P = arch.replicas;

  template <class Tensor>
  struct Weights {
    Tensor q_weight, k_weight, v_weight;  // [A*D,H] [G*D,H] [G*D,H], side by side
    Tensor q_bias, k_bias, v_bias;        // [A*D] [G*D] [G*D], side by side
    Tensor o_proj;                        // [H,A*D], or where expanded crosses
    Tensor cross_attn_proj;               // [H,P*A*D]
    typename Prefix::template Weights<Tensor> prefix;
    static void each(auto&& f, auto&... w) {
      f("q_proj.weight", w.q_weight...);
      f("k_proj.weight", w.k_weight...);
      f("v_proj.weight", w.v_weight...);
      f("q_proj.bias", w.q_bias...);
      f("k_proj.bias", w.k_bias...);
      f("v_proj.bias", w.v_bias...);
      f("o_proj.weight", w.o_proj...);
      f("cross_attn_proj.weight", w.cross_attn_proj...);
      Prefix::template Weights<Tensor>::each(f, w.prefix...);
    }
    const Tensor& output() const { return cross_attn_proj.count() > 0 ? cross_attn_proj : o_proj; }
  };
  static Weights<Extent> weights(const Shape& shape, bool expanded) {
    const Index q = shape.heads * D, k = shape.kv_heads * D, h = shape.hidden;
    const Extent own{h, q}, apart{h, P * q}, absent{};
    return {{q, h},
            {k, h},
            {k, h},
            {q},
            {k},
            {k},
            expanded ? absent : own,
            expanded ? apart : absent,
            Prefix::weights(shape)};
  }

  struct Kept {
    View<S> x;        // [M,H] the normalised input, [N,H] where it is the same for all replicas
    View<S> qkv;      // [M,(A+2G)*D] rotated
    View<S> out;      // [M,A*D], expanded [M,P*A*D]
    View<W> log_sum;  // [M,A]
  };
  static Kept take_kept(Arena& arena, const Shape& shape, const Layout& layout, bool expanded,
                        bool same_input = false, View<S> shared = {}) {
    const Index m = layout.rows(), q = shape.heads * D;
    return {take_or(shared, arena, {same_input ? layout.positions() : m, shape.hidden}),
            arena.take<S>({m, q + 2 * shape.kv_heads * D}), arena.take<S>({m, expanded ? P * q : q}),
            arena.take<W>({m, shape.heads})};
  }
  struct Scratch {
    View<S> d_out, d_qkv;
  };
  static Scratch take_scratch(Arena& arena, const Shape& shape, const Layout& layout, bool expanded) {
    const Index m = layout.rows(), q = shape.heads * D;
    return {arena.take<S>({m, expanded ? P * q : q}), arena.take<S>({m, q + 2 * shape.kv_heads * D})};
  }

  // kept.x [M,H] -> out = residual + attention, both [M,H]. `cache` holds earlier tokens when decoding.
  static void forward(const Weights<In<S>>& w, bool expanded, Kept& kept,
                      const typename Prefix::Tokens& cache, In<S> residual, Out<S> out, Context<B>& at) {
    project(w, kept, at);
    if (cache) Prefix::append(cache, kept.qkv, at);
    attend(w, expanded, kept, cache, at);
    at.on.linear({.x = kept.out, .weight = w.output(), .add = residual, .out = out});
  }

  /// Whether the backward reads kept.x: not when every projection of it is frozen.
  static bool reads_input(const Weights<Out<W>>& d_w) {
    return d_w.q_weight || d_w.k_weight || d_w.v_weight || d_w.q_bias || d_w.k_bias || d_w.v_bias;
  }
  // d_out [M,H] -> d_x, the gradient of kept.x, and those of all weights but the ones that multiply it.
  static void backward(const Weights<In<S>>& w, const Weights<Out<W>>& d_w, bool expanded, const Kept& kept,
                       const Scratch& scratch, In<S> d_out, Out<S> d_x, Context<B>& at) {
    at.on.linear_input_gradient({.d_out = d_out, .weight = w.output(), .d_x = scratch.d_out});
    if (d_w.output())
      at.on.linear_weight_gradient(
          {.x = kept.out, .d_out = d_out, .d_weight = d_w.output(), .accumulate = at.accumulate});
    attend_backward(w, d_w, expanded, kept, scratch, at);
    if (kept.x.rows() < at.layout.rows()) at.on.sum_replicas({.layout = at.layout, .x = scratch.d_qkv});
    at.on.linear_input_gradient({.d_out = scratch.d_qkv.first(kept.x.rows()),
                                 .weight = joined(w.q_weight, w.k_weight, w.v_weight),
                                 .d_x = d_x});
  }
  // The gradients of what multiplies kept.x, which may have been normalised anew in between.
  static void input_weight_gradients(const Weights<Out<W>>& d_w, const Kept& kept, const Scratch& scratch,
                                     Context<B>& at) {
    const Index q = at.shape.heads * D, k = at.shape.kv_heads * D;
    projection_gradients<B, 3>(
        at, kept.x, scratch.d_qkv.first(kept.x.rows()),
        {{{q, d_w.q_weight, d_w.q_bias}, {k, d_w.k_weight, d_w.k_bias}, {k, d_w.v_weight, d_w.v_bias}}});
  }

 private:
  // kept.x -> kept.qkv, rotated. Where x is the same for all replicas, so are q, k and v: one replica's are
  // computed, the others get copies.
  static void project(const Weights<In<S>>& w, Kept& kept, Context<B>& at) {
    const Index rows = kept.x.rows();
    const View<S> qkv = kept.qkv.first(rows);
    at.on.linear({.x = kept.x,
                  .weight = joined(w.q_weight, w.k_weight, w.v_weight),
                  .bias = joined(w.q_bias, w.k_bias, w.v_bias),
                  .out = qkv});
    Layout layout = at.layout;
    if (rows < layout.rows()) layout.replicas = 1;
    at.on.rotate(head_dim<arch>, {.layout = layout,
                                  .x = qkv,
                                  .heads = at.shape.heads + at.shape.kv_heads,
                                  .theta = at.shape.rope_theta});
    for (Index row = rows; row < kept.qkv.rows(); row += rows)
      at.on.copy(qkv, Out<S>{kept.qkv.row(row), qkv.extent});
  }

  static void attend(const Weights<In<S>>& w, bool expanded, Kept& kept, const typename Prefix::Tokens& cache,
                     Context<B>& at) {
    const op::Attend<S, W> operands{.layout = at.layout,
                                    .heads = at.shape.heads,
                                    .kv_heads = at.shape.kv_heads,
                                    .qkv = kept.qkv,
                                    .keys = cache.keys,
                                    .values = cache.values,
                                    .prefix_k = w.prefix.prefix_k,
                                    .prefix_v = w.prefix.prefix_v,
                                    .out = kept.out,
                                    .log_sum = kept.log_sum};
    if constexpr (arch.cross_attention == CrossAttention::expanded) {
      if (expanded) return at.on.attend_expanded(head_dim<arch>, replicas<arch>, operands);
    }
    at.on.attend(head_dim<arch>, operands);
  }

  static void attend_backward(const Weights<In<S>>& w, const Weights<Out<W>>& d_w, bool expanded,
                              const Kept& kept, const Scratch& scratch, Context<B>& at) {
    const op::AttendBackward<S, W> operands{.layout = at.layout,
                                            .heads = at.shape.heads,
                                            .kv_heads = at.shape.kv_heads,
                                            .qkv = kept.qkv,
                                            .prefix_k = w.prefix.prefix_k,
                                            .prefix_v = w.prefix.prefix_v,
                                            .out = kept.out,
                                            .log_sum = kept.log_sum,
                                            .d_out = scratch.d_out,
                                            .d_qkv = scratch.d_qkv,
                                            .d_prefix_k = d_w.prefix.prefix_k,
                                            .d_prefix_v = d_w.prefix.prefix_v,
                                            .accumulate = at.accumulate,
                                            .rotary_theta = at.shape.rope_theta};
    if constexpr (arch.cross_attention == CrossAttention::expanded) {
      if (expanded) return at.on.attend_expanded_backward(head_dim<arch>, replicas<arch>, operands);
    }
    at.on.attend_backward(head_dim<arch>, operands);
  }
};

}  // namespace parscale
