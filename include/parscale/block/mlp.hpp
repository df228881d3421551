/// The gated MLP (SwiGLU, arXiv 2002.05202): down(silu(gate x) * up x), added to the residual stream.
#pragma once

#include "projection.hpp"

namespace parscale {

template <class B>
struct Mlp {
  using S = Scalar<B>;
  using W = Wide<B>;

  template <class Tensor>
  struct Weights {
    Tensor gate_proj, up_proj;  // [I,H] [I,H], side by side
    Tensor down_proj;           // [H,I]
    static void each(auto&& f, auto&... w) {
      f("gate_proj.weight", w.gate_proj...);
      f("up_proj.weight", w.up_proj...);
      f("down_proj.weight", w.down_proj...);
    }
  };
  static Weights<Extent> weights(const Shape& shape) {
    const Index i = shape.intermediate, h = shape.hidden;
    return {{i, h}, {i, h}, {h, i}};
  }

  struct Kept {
    View<S> x;        // [M,H] the normalised input
    View<S> gate_up;  // [M,2*I]; the backward replaces it by its gradient
  };
  static Kept take_kept(Arena& arena, const Shape& shape, const Layout& layout, View<S> shared = {}) {
    return {take_or(shared, arena, {layout.rows(), shape.hidden}),
            arena.take<S>({layout.rows(), 2 * shape.intermediate})};
  }
  static View<S> take_scratch(Arena& arena, const Shape& shape, const Layout& layout) {
    return arena.take<S>({layout.rows(), shape.intermediate});
  }

  // kept.x [M,H] -> out = residual + mlp, both [M,H].
  static void forward(const Weights<In<S>>& w, Kept& kept, In<S> residual, Out<S> out, Context<B>& at) {
    Arena::Frame frame(at.scratch);
    View<S> product = take_scratch(at.scratch, at.shape, at.layout);
    at.on.gated_linear(
        {.x = kept.x, .weight = joined(w.gate_proj, w.up_proj), .gate_up = kept.gate_up, .product = product});
    at.on.linear({.x = product, .weight = w.down_proj, .add = residual, .out = out});
  }

  /// Whether the backward reads kept.x: not when both projections of it are frozen.
  static bool reads_input(const Weights<Out<W>>& d_w) { return d_w.gate_proj || d_w.up_proj; }
  // d_out [M,H] -> d_x [M,H], the gradient of kept.x, and that of down. The product is computed again: one
  // pass that the activation's gradient makes anyway, for [M,I] less to keep.
  static void backward(const Weights<In<S>>& w, const Weights<Out<W>>& d_w, Kept& kept, In<S> d_out,
                       Out<S> d_x, Context<B>& at) {
    Arena::Frame frame(at.scratch);
    View<S> product = take_scratch(at.scratch, at.shape, at.layout);
    at.on.gated_linear_backward(
        {.d_out = d_out, .weight = w.down_proj, .gate_up = kept.gate_up, .product = product});
    if (d_w.down_proj)
      at.on.linear_weight_gradient(
          {.x = product, .d_out = d_out, .d_weight = d_w.down_proj, .accumulate = at.accumulate});
    at.on.linear_input_gradient(
        {.d_out = kept.gate_up, .weight = joined(w.gate_proj, w.up_proj), .d_x = d_x});
  }
  // The gradients of what multiplies kept.x, which may have been normalised anew in between.
  static void input_weight_gradients(const Weights<Out<W>>& d_w, const Kept& kept, Context<B>& at) {
    const Index i = at.shape.intermediate;
    projection_gradients<B, 2>(at, kept.x, kept.gate_up, {{{i, d_w.gate_proj}, {i, d_w.up_proj}}});
  }
};

}  // namespace parscale
