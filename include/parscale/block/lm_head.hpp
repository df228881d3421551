/// The LM head: the merged stream times the vocabulary's matrix (the embedding itself when tied), and the
/// cross-entropy over it. It runs once a token, whatever P is.
#pragma once

#include "context.hpp"

namespace parscale {

template <class B>
struct LmHead {
  using S = Scalar<B>;
  using W = Wide<B>;

  // x [N,H], weight [V,H] -> out [N,V].
  static void logits(In<S> weight, In<S> x, Out<W> out, B& on) {
    on.logits({.x = x, .weight = weight, .out = out});
  }

  // Sum of the cross-entropies of x [N,H] against targets [N], times scale.
  static double loss(In<S> weight, In<S> x, In<Token> targets, double scale, B& on) {
    return on.head_loss({.x = x, .weight = weight, .targets = targets, .scale = scale});
  }
  // The same with gradients, chunk by chunk: the vocabulary's logits never exist for all positions at once.
  static double loss_and_gradients(In<S> weight, Out<W> d_weight, In<S> x, In<Token> targets, double scale,
                                   Out<S> d_x, Context<B>& at) {
    return at.on.head_loss({.x = x,
                            .weight = weight,
                            .targets = targets,
                            .scale = scale,
                            .d_x = d_x,
                            .d_weight = d_weight,
                            .accumulate = at.accumulate});
  }
};

}  // namespace parscale
