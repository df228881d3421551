/// Aggregation (arXiv 2505.10475, section 3): the P streams of a token become one, their sum weighted by a
/// small network over all of them. Linear(P*H -> H), SiLU, Linear(H -> P), softmax, smoothing.
#pragma once

#include "context.hpp"

namespace parscale {

template <Architecture arch, class B>
struct Aggregation {
  using S = Scalar<B>;
  using W = Wide<B>;
  static constexpr Index P = arch.replicas;

  template <class Tensor>
  struct Weights {
    Tensor weight_0, bias_0;  // [H,P*H] (feature h*P + r) [H]
    Tensor weight_2, bias_2;  // [P,H] [P]
    static void each(auto&& f, auto&... w) {
      f("0.weight", w.weight_0...);
      f("0.bias", w.bias_0...);
      f("2.weight", w.weight_2...);
      f("2.bias", w.bias_2...);
    }
  };
  static Weights<Extent> weights(const Shape& shape) {
    if constexpr (P == 1) return {};
    return {{shape.hidden, P * shape.hidden}, {shape.hidden}, {P, shape.hidden}, {P}};
  }

  /// `streams` is what the final norm writes: [N,H,P], replica fastest, so that a position's streams are
  /// already the P*H features of the first linear. At P = 1 it is the result and everything else is absent.
  struct Kept {
    View<S> streams;         // [N,H,P]
    View<S> hidden, active;  // [N,H] before and after SiLU
    View<W> weights;         // [N,P]
    View<S> merged;          // [N,H]
  };
  static Kept take_kept(Arena& arena, const Shape& shape, const Layout& layout) {
    const Index n = layout.positions(), h = shape.hidden;
    if constexpr (P == 1) return {arena.take<S>({n, h}), {}, {}, {}, {}};
    return {arena.take<S>({n, h, P}), arena.take<S>({n, h}), arena.take<S>({n, h}), arena.take<W>({n, P}),
            arena.take<S>({n, h})};
  }
  struct Scratch {
    View<S> scores, d_active;
  };
  static Scratch take_scratch(Arena& arena, const Shape& shape, const Layout& layout) {
    const Index n = layout.positions();
    if constexpr (P == 1) return {};
    return {arena.take<S>({n, P}), arena.take<S>({n, shape.hidden})};
  }

  // kept.streams -> the merged stream [N,H].
  static View<S> forward(const Weights<In<S>>& w, Kept& kept, Context<B>& at) {
    if constexpr (P == 1) {
      return kept.streams;
    } else {
      Arena::Frame frame(at.scratch);
      auto scratch = take_scratch(at.scratch, at.shape, at.layout);
      at.on.linear({.x = features(kept.streams), .weight = w.weight_0, .bias = w.bias_0, .out = kept.hidden});
      at.on.silu({.x = kept.hidden, .out = kept.active});
      at.on.linear({.x = kept.active, .weight = w.weight_2, .bias = w.bias_2, .out = scratch.scores});
      at.on.merge(replicas<arch>, {.streams = kept.streams,
                                   .scores = scratch.scores,
                                   .smoothing = at.shape.smoothing,
                                   .weights = kept.weights,
                                   .out = kept.merged});
      return kept.merged;
    }
  }

  // d_merged [N,H] -> d_streams [N,H,P]. At P = 1 they are one and the same memory.
  static void backward(const Weights<In<S>>& w, const Weights<Out<W>>& d_w, Kept& kept, In<S> d_merged,
                       Out<S> d_streams, Context<B>& at) {
    if constexpr (P > 1) {
      Arena::Frame frame(at.scratch);
      auto [d_scores, d_active] = take_scratch(at.scratch, at.shape, at.layout);
      at.on.merge_backward(replicas<arch>, {.streams = kept.streams,
                                            .weights = kept.weights,
                                            .smoothing = at.shape.smoothing,
                                            .d_out = d_merged,
                                            .d_streams = d_streams,
                                            .d_scores = d_scores});
      linear_weight_gradient(kept.active, d_scores, d_w.weight_2, d_w.bias_2, at);
      at.on.linear_input_gradient({.d_out = d_scores, .weight = w.weight_2, .d_x = d_active});
      at.on.silu_backward({.x = kept.hidden, .d_out = d_active, .d_x = d_active});
      linear_weight_gradient(features(kept.streams), d_active, d_w.weight_0, d_w.bias_0, at);
      at.on.linear_input_gradient(
          {.d_out = d_active, .weight = w.weight_0, .d_x = features(d_streams), .accumulate = true});
    }
  }

 private:
  template <class T>
  static View<T> features(View<T> streams) {
    return {streams.data, {streams.extent[0], streams.extent[1] * P}};
  }
  static void linear_weight_gradient(In<S> x, In<S> d_out, Out<W> d_weight, Out<W> d_bias, Context<B>& at) {
    if (d_weight || d_bias)
      at.on.linear_weight_gradient(
          {.x = x, .d_out = d_out, .d_weight = d_weight, .d_bias = d_bias, .accumulate = at.accumulate});
  }
};

}  // namespace parscale
