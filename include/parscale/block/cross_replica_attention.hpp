/// The `sublayer` kind of cross-replica attention: the P replicas of one position attend to each other, with
/// projections of their own; added to the residual stream.
#pragma once

#include "projection.hpp"

namespace parscale {

template <Architecture arch, class B>
struct CrossReplicaAttention {
  using S = Scalar<B>;
  using W = Wide<B>;
  static constexpr Index D = arch.head_dim;
  static constexpr double replica_rope_theta = 10000.0;

  template <class Tensor>
  struct Weights {
    Tensor q_weight, k_weight, v_weight;  // [A*D,H] [G*D,H] [G*D,H], side by side
    Tensor q_bias, k_bias, v_bias;        // [A*D] [G*D] [G*D], side by side
    Tensor o_proj;                        // [H,A*D], starts at zero
    static void each(auto&& f, auto&... w) {
      f("q_proj.weight", w.q_weight...);
      f("k_proj.weight", w.k_weight...);
      f("v_proj.weight", w.v_weight...);
      f("q_proj.bias", w.q_bias...);
      f("k_proj.bias", w.k_bias...);
      f("v_proj.bias", w.v_bias...);
      f("o_proj.weight", w.o_proj...);
    }
  };
  static Weights<Extent> weights(const Shape& shape) {
    const Index q = shape.heads * D, k = shape.kv_heads * D, h = shape.hidden;
    return {{q, h}, {k, h}, {k, h}, {q}, {k}, {k}, {h, q}};
  }

  struct Kept {
    View<S> x;    // [M,H] the normalised input
    View<S> qkv;  // [M,(A+2G)*D]
    View<S> out;  // [M,A*D]
  };
  static Kept take_kept(Arena& arena, const Shape& shape, const Layout& layout, View<S> shared = {}) {
    const Index m = layout.rows(), q = shape.heads * D;
    return {take_or(shared, arena, {m, shape.hidden}), arena.take<S>({m, q + 2 * shape.kv_heads * D}),
            arena.take<S>({m, q})};
  }
  struct Scratch {
    View<S> d_out, d_qkv;
  };
  static Scratch take_scratch(Arena& arena, const Shape& shape, const Layout& layout) {
    const Index m = layout.rows(), q = shape.heads * D;
    return {arena.take<S>({m, q}), arena.take<S>({m, q + 2 * shape.kv_heads * D})};
  }

  // kept.x [M,H] -> out = residual + attention, both [M,H].
  static void forward(const Weights<In<S>>& w, Kept& kept, In<S> residual, Out<S> out, Context<B>& at) {
    at.on.linear({.x = kept.x,
                  .weight = joined(w.q_weight, w.k_weight, w.v_weight),
                  .bias = joined(w.q_bias, w.k_bias, w.v_bias),
                  .out = kept.qkv});
    if (at.shape.replica_rope) rotate(kept.qkv, false, at);
    at.on.attend_replicas(head_dim<arch>, replicas<arch>,
                          {.layout = at.layout,
                           .heads = at.shape.heads,
                           .kv_heads = at.shape.kv_heads,
                           .qkv = kept.qkv,
                           .out = kept.out});
    at.on.linear({.x = kept.out, .weight = w.o_proj, .add = residual, .out = out});
  }

  /// Whether the backward reads kept.x: not when every projection of it is frozen.
  static bool reads_input(const Weights<Out<W>>& d_w) {
    return d_w.q_weight || d_w.k_weight || d_w.v_weight || d_w.q_bias || d_w.k_bias || d_w.v_bias;
  }
  // d_out [M,H] -> d_x [M,H], the gradient of kept.x, and those of all weights but the ones that multiply it.
  static void backward(const Weights<In<S>>& w, const Weights<Out<W>>& d_w, const Kept& kept,
                       const Scratch& scratch, In<S> d_out, Out<S> d_x, Context<B>& at) {
    at.on.linear_input_gradient({.d_out = d_out, .weight = w.o_proj, .d_x = scratch.d_out});
    if (d_w.o_proj)
      at.on.linear_weight_gradient(
          {.x = kept.out, .d_out = d_out, .d_weight = d_w.o_proj, .accumulate = at.accumulate});
    at.on.attend_replicas_backward(head_dim<arch>, replicas<arch>,
                                   {.layout = at.layout,
                                    .heads = at.shape.heads,
                                    .kv_heads = at.shape.kv_heads,
                                    .qkv = kept.qkv,
                                    .d_out = scratch.d_out,
                                    .d_qkv = scratch.d_qkv});
    if (at.shape.replica_rope) rotate(scratch.d_qkv, true, at);
    at.on.linear_input_gradient(
        {.d_out = scratch.d_qkv, .weight = joined(w.q_weight, w.k_weight, w.v_weight), .d_x = d_x});
  }
  // The gradients of what multiplies kept.x, which may have been normalised anew in between.
  static void input_weight_gradients(const Weights<Out<W>>& d_w, const Kept& kept, const Scratch& scratch,
                                     Context<B>& at) {
    const Index q = at.shape.heads * D, k = at.shape.kv_heads * D;
    projection_gradients<B, 3>(
        at, kept.x, scratch.d_qkv,
        {{{q, d_w.q_weight, d_w.q_bias}, {k, d_w.k_weight, d_w.k_bias}, {k, d_w.v_weight, d_w.v_bias}}});
  }

 private:
  static void rotate(Out<S> qkv, bool inverse, Context<B>& at) {
    at.on.rotate(head_dim<arch>, {.layout = at.layout,
                                  .x = qkv,
                                  .heads = at.shape.heads + at.shape.kv_heads,
                                  .theta = replica_rope_theta,
                                  .by_replica = true,
                                  .inverse = inverse});
  }
};

}  // namespace parscale
