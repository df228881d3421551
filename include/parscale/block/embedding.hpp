/// Token embedding and replication: every token becomes P equal streams, told apart by their prefixes and,
/// when the model has one, by a learned vector a replica.
#pragma once

#include "context.hpp"

namespace parscale {

template <Architecture arch, class B>
struct Embedding {
  using S = Scalar<B>;
  using W = Wide<B>;

  template <class Tensor>
  struct Weights {
    Tensor embed_tokens;       // [V,H]
    Tensor replica_embedding;  // [P,H], absent by default
    static void each(auto&& f, auto&... w) {
      f("model.embed_tokens.weight", w.embed_tokens...);
      f("model.replica_embedding", w.replica_embedding...);
    }
  };
  static Weights<Extent> weights(const Shape& shape) {
    const bool own = arch.replicas > 1 && shape.replica_embedding;
    return {{shape.vocabulary, shape.hidden}, own ? Extent{arch.replicas, shape.hidden} : Extent{}};
  }

  // ids [B,S] or [P,B,S] -> x [M,H].
  static void forward(const Weights<In<S>>& w, In<Token> ids, Out<S> x, Context<B>& at) {
    at.on.embed({.ids = ids, .table = w.embed_tokens, .replica_embedding = w.replica_embedding, .out = x});
  }
  // A tied head has written the table's gradient already.
  static void backward(const Weights<Out<W>>& d_w, In<Token> ids, In<S> d_x, Context<B>& at) {
    if (d_w.embed_tokens)
      at.on.embed_backward({.ids = ids,
                            .d_out = d_x,
                            .d_table = d_w.embed_tokens,
                            .accumulate = at.accumulate || at.shape.tied});
    if (d_w.replica_embedding)
      at.on.embed_backward({.ids = ids,
                            .d_out = d_x,
                            .d_replica_embedding = d_w.replica_embedding,
                            .accumulate = at.accumulate});
  }
};

}  // namespace parscale
