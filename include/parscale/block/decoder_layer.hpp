/// One decoder layer, pre-norm: [cross-replica attention,] self-attention, gated MLP, each added to the
/// stream.
#pragma once

#include "cross_replica_attention.hpp"
#include "mlp.hpp"
#include "rms_norm.hpp"
#include "self_attention.hpp"

namespace parscale {

template <Architecture arch, class B>
struct DecoderLayer {
  using S = Scalar<B>;
  using W = Wide<B>;
  using Norm = RmsNorm<B>;
  using Cross = CrossReplicaAttention<arch, B>;
  using Attention = SelfAttention<arch, B>;
  using Prefix = PrefixCache<arch, B>;
  static constexpr bool has_sublayer = arch.cross_attention == CrossAttention::sublayer;
  static constexpr bool has_expanded = arch.cross_attention == CrossAttention::expanded;

  template <class Tensor>
  struct Weights {
    typename Norm::template Weights<Tensor> cross_replica_layernorm, input_layernorm,
        post_attention_layernorm;
    typename Cross::template Weights<Tensor> cross_replica_attn;
    typename Attention::template Weights<Tensor> self_attn;
    typename Mlp<B>::template Weights<Tensor> mlp;
    static void each(auto&& f, auto&... w) {
      Norm::template Weights<Tensor>::each(inside("cross_replica_layernorm", f),
                                           w.cross_replica_layernorm...);
      Cross::template Weights<Tensor>::each(inside("cross_replica_attn", f), w.cross_replica_attn...);
      Norm::template Weights<Tensor>::each(inside("input_layernorm", f), w.input_layernorm...);
      Attention::template Weights<Tensor>::each(inside("self_attn", f), w.self_attn...);
      Norm::template Weights<Tensor>::each(inside("post_attention_layernorm", f),
                                           w.post_attention_layernorm...);
      Mlp<B>::template Weights<Tensor>::each(inside("mlp", f), w.mlp...);
    }
  };
  static Weights<Extent> weights(const Shape& shape, bool crosses) {
    Weights<Extent> w;
    w.input_layernorm = Norm::weights(shape);
    w.self_attn = Attention::weights(shape, has_expanded && crosses);
    w.post_attention_layernorm = Norm::weights(shape);
    w.mlp = Mlp<B>::weights(shape);
    if (has_sublayer && crosses) {
      w.cross_replica_layernorm = Norm::weights(shape);
      w.cross_replica_attn = Cross::weights(shape);
    }
    return w;
  }

  struct Kept {
    bool normalise_again = false;  // the steps' inputs share one place, and their norms' backward fills it
    View<W> cross_rstd, attention_rstd, mlp_rstd;
    View<S> after_cross, after_attention;  // [M,H] the stream between the steps
    typename Cross::Kept cross;
    typename Attention::Kept attention;
    typename Mlp<B>::Kept mlp;
  };
  /// `same_input`: attention's input is the same for all replicas. `shared` [M,H]: the one place for all
  /// normalised inputs; absent: each has its own.
  static Kept take_kept(Arena& arena, const Shape& shape, const Layout& layout, bool crosses,
                        bool same_input = false, View<S> shared = {}) {
    const Extent stream{layout.rows(), shape.hidden};
    Kept kept;
    kept.normalise_again = shared.count() > 0;
    if (has_sublayer && crosses) {
      kept.cross_rstd = Norm::take_kept(arena, layout);
      kept.cross = Cross::take_kept(arena, shape, layout, shared);
      kept.after_cross = arena.take<S>(stream);
    }
    kept.attention = Attention::take_kept(arena, shape, layout, has_expanded && crosses, same_input, shared);
    kept.attention_rstd = arena.take<W>({kept.attention.x.rows()});
    kept.after_attention = arena.take<S>(stream);
    kept.mlp_rstd = Norm::take_kept(arena, layout);
    kept.mlp = Mlp<B>::take_kept(arena, shape, layout, shared);
    return kept;
  }
  /// Plans what the deepest step of backward takes from the scratch arena.
  static void plan_scratch(Arena& arena, const Shape& shape, const Layout& layout, bool crosses) {
    Arena::Frame frame(arena);
    arena.take<S>({layout.rows(), shape.hidden});
    const auto plan = [&](auto take) {
      Arena::Frame step(arena);
      take();
    };
    plan([&] { Attention::take_scratch(arena, shape, layout, has_expanded && crosses); });
    plan([&] { Mlp<B>::take_scratch(arena, shape, layout); });
    if (has_sublayer && crosses) plan([&] { Cross::take_scratch(arena, shape, layout); });
  }

  // x [M,H] -> y [M,H].
  static void forward(const Weights<In<S>>& w, bool crosses, In<S> x, Out<S> y, Kept& kept,
                      const typename Prefix::Tokens& cache, Context<B>& at) {
    if constexpr (has_sublayer) {
      if (crosses) {
        Norm::forward(w.cross_replica_layernorm, x, kept.cross.x, kept.cross_rstd, at);
        Cross::forward(w.cross_replica_attn, kept.cross, x, kept.after_cross, at);
        x = kept.after_cross;
      }
    }
    Norm::forward(w.input_layernorm, x.first(kept.attention.x.rows()), kept.attention.x, kept.attention_rstd,
                  at);
    Attention::forward(w.self_attn, has_expanded && crosses, kept.attention, cache, x, kept.after_attention,
                       at);
    Norm::forward(w.post_attention_layernorm, kept.after_attention, kept.mlp.x, kept.mlp_rstd, at);
    Mlp<B>::forward(w.mlp, kept.mlp, kept.after_attention, y, at);
  }

  // d [M,H] in place: the gradient of y becomes that of x; where attention's input is the same for all
  // replicas, d's first N rows become the sum over them.
  static void backward(const Weights<In<S>>& w, const Weights<Out<W>>& d_w, bool crosses, In<S> x, Out<S> d,
                       Kept& kept, Context<B>& at) {
    Arena::Frame frame(at.scratch);
    View<S> d_normed = at.scratch.template take<S>(d.extent);
    const In<S> attention_in = has_sublayer && crosses ? kept.after_cross.readable() : x;

    // Each step: its input's gradient, through the norm to the stream's, which on its way writes the
    // normalised input that the weights' gradients read last.
    const auto again = [&](bool is_read, Out<S> normed) {
      return kept.normalise_again && is_read ? normed : Out<S>{};
    };
    Mlp<B>::backward(w.mlp, d_w.mlp, kept.mlp, d, d_normed, at);
    Norm::backward(w.post_attention_layernorm, d_w.post_attention_layernorm, kept.after_attention,
                   kept.mlp_rstd, d_normed, d, d, at, 1, again(Mlp<B>::reads_input(d_w.mlp), kept.mlp.x));
    Mlp<B>::input_weight_gradients(d_w.mlp, kept.mlp, at);
    {
      Arena::Frame step(at.scratch);
      const auto scratch = Attention::take_scratch(at.scratch, at.shape, at.layout, has_expanded && crosses);
      const Index rows = kept.attention.x.rows();
      const View<S> d_in = d.first(rows);
      Attention::backward(w.self_attn, d_w.self_attn, has_expanded && crosses, kept.attention, scratch, d,
                          d_normed.first(rows), at);
      if (rows < d.rows()) at.on.sum_replicas({.layout = at.layout, .x = d});
      Norm::backward(w.input_layernorm, d_w.input_layernorm, attention_in.first(rows), kept.attention_rstd,
                     d_normed.first(rows), d_in, d_in, at, 1,
                     again(Attention::reads_input(d_w.self_attn), kept.attention.x));
      Attention::input_weight_gradients(d_w.self_attn, kept.attention, scratch, at);
    }
    if constexpr (has_sublayer) {
      if (crosses) {
        const auto scratch = Cross::take_scratch(at.scratch, at.shape, at.layout);
        Cross::backward(w.cross_replica_attn, d_w.cross_replica_attn, kept.cross, scratch, d, d_normed, at);
        Norm::backward(w.cross_replica_layernorm, d_w.cross_replica_layernorm, x, kept.cross_rstd, d_normed,
                       d, d, at, 1, again(Cross::reads_input(d_w.cross_replica_attn), kept.cross.x));
        Cross::input_weight_gradients(d_w.cross_replica_attn, kept.cross, scratch, at);
      }
    }
  }
};

}  // namespace parscale
