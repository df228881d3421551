/// What a query sees besides the tokens of its own call: the learned prefix of its replica (ParScale's prefix
/// tuning, arXiv 2505.10475 section 3) and, in decoding, the keys and values of earlier tokens.
#pragma once

#include "context.hpp"

namespace parscale {

template <Architecture arch, class B>
struct PrefixCache {
  using S = Scalar<B>;

  /// Shared by all sequences, never rotated, visible to every query. Absent at P = 1 or T = 0.
  template <class Tensor>
  struct Weights {
    Tensor prefix_k, prefix_v;  // [P,G,T,D]
    static void each(auto&& f, auto&... w) {
      f("prefix_k", w.prefix_k...);
      f("prefix_v", w.prefix_v...);
    }
  };
  static Weights<Extent> weights(const Shape& shape) {
    const Index length = prefix_tokens(arch, shape);
    if (length == 0) return {};
    const Extent prefix{arch.replicas, shape.kv_heads, length, arch.head_dim};
    return {prefix, prefix};
  }

  /// One layer's keys and values of the tokens seen so far. Absent in training.
  struct Tokens {
    View<S> keys, values;  // [P*B,G,C,D]
    explicit operator bool() const { return static_cast<bool>(keys); }
  };
  static Tokens take_tokens(Arena& arena, const Shape& shape, Index sequences, Index capacity) {
    const Extent extent{arch.replicas * sequences, shape.kv_heads, capacity, arch.head_dim};
    View<S> keys = arena.take<S>(extent), values = arena.take<S>(extent);
    return {keys, values};
  }

  // Puts the batch's keys and values (inside qkv [M,(A+2G)D], already rotated) behind those of earlier
  // tokens.
  static void append(const Tokens& cache, In<S> qkv, Context<B>& at) {
    at.on.append(head_dim<arch>, {.layout = at.layout,
                                  .heads = at.shape.heads,
                                  .kv_heads = at.shape.kv_heads,
                                  .qkv = qkv,
                                  .keys = cache.keys,
                                  .values = cache.values});
  }
};

}  // namespace parscale
