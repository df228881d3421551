/// RMSNorm (arXiv 1910.07467): gain * x / sqrt(mean(x^2) + eps), a row at a time.
#pragma once

#include "context.hpp"

namespace parscale {

template <class B>
struct RmsNorm {
  using S = Scalar<B>;
  using W = Wide<B>;

  template <class Tensor>
  struct Weights {
    Tensor weight;  // [H]
    static void each(auto&& f, auto&... w) { f("weight", w.weight...); }
  };
  static Weights<Extent> weights(const Shape& shape) { return {{shape.hidden}}; }

  /// One number a row; the input itself is the residual stream, which stays.
  static View<W> take_kept(Arena& arena, const Layout& layout) { return arena.take<W>({layout.rows()}); }

  // x [M,H] -> out [M,H], or [N,H,P] with interleave = P.
  static void forward(const Weights<In<S>>& w, In<S> x, Out<S> out, Out<W> rstd, Context<B>& at,
                      Index interleave = 1) {
    at.on.rms_norm({.x = x,
                    .gain = w.weight,
                    .eps = at.shape.rms_norm_eps,
                    .interleave = interleave,
                    .out = out,
                    .rstd = rstd});
  }
  // d_x = d_residual + through the norm; d_residual may be d_x or absent. `normed`: receives the forward's
  // out once more.
  static void backward(const Weights<In<S>>& w, const Weights<Out<W>>& d_w, In<S> x, In<W> rstd, In<S> d_out,
                       In<S> d_residual, Out<S> d_x, Context<B>& at, Index interleave = 1,
                       Out<S> normed = {}) {
    at.on.rms_norm_backward({.x = x,
                             .gain = w.weight,
                             .rstd = rstd,
                             .d_out = d_out,
                             .interleave = interleave,
                             .d_residual = d_residual,
                             .d_x = d_x,
                             .d_gain = d_w.weight,
                             .normed = normed,
                             .accumulate = at.accumulate});
  }
};

}  // namespace parscale
