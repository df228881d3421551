/// Where attention finds its operands on the device: heads inside rows, the queries of a tile, the keys they
/// see.
#pragma once

#include <cmath>

#include "../backend.hpp"
#include "numbers.cuh"

namespace parscale::cuda {

/// Sizes of an attention call and where heads lie inside rows of qkv and out.
struct HeadPlaces {
  Index tokens, sequences, positions;
  int replicas, heads, kv_heads, group, dim;
  Index qkv_width, out_width;  ///< columns of a row
  int sources;                 ///< blocks of out: P when expanded, else 1

  HeadPlaces(const Layout& layout, Index query_heads, Index key_heads, int head_dim, int blocks)
      : tokens(layout.tokens),
        sequences(layout.sequences),
        positions(layout.positions()),
        replicas(layout.replicas),
        heads(static_cast<int>(query_heads)),
        kv_heads(static_cast<int>(key_heads)),
        group(heads / kv_heads),
        dim(head_dim),
        qkv_width((query_heads + 2 * key_heads) * head_dim),
        out_width(blocks * query_heads * head_dim),
        sources(blocks) {}

  __host__ __device__ Index rows() const { return replicas * positions; }
  __host__ __device__ Index streams() const { return replicas * sequences; }
  __device__ Index query(Index row, int head) const { return row * qkv_width + head * dim; }
  __device__ Index key(Index row, int kv_head) const { return row * qkv_width + (heads + kv_head) * dim; }
  __device__ Index value(Index row, int kv_head) const { return key(row, kv_head + kv_heads); }
  /// The result of a head whose values came from replica `source` (0 when not expanded).
  __device__ Index out(Index row, int source, int head) const {
    return row * out_width + (static_cast<Index>(source) * heads + head) * dim;
  }
  /// The result of a head whose values came from its own stream.
  __device__ Index own_out(Index row, int head) const {
    return out(row, sources > 1 ? static_cast<int>(row / positions) : 0, head);
  }
  float scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(dim))); }
};

__host__ __device__ inline Index tiles_of(Index count, Index size) { return (count + size - 1) / size; }

inline constexpr float log2_e = 1.4426950408889634F, ln_2 = 0.6931471805599453F;

/// What attention reads, forward and backward.
template <class S>
struct AttentionInputs {
  HeadPlaces at;
  float scale;
  const S* qkv;
  const S *keys, *values;  ///< the cache, or null
  Index capacity;
  const S *prefix_k, *prefix_v;
  int prefix;  ///< T
  const Index* past;
  const std::int32_t* starts;
};

template <class S, class A>
AttentionInputs<S> attention_inputs(int head_dim, int sources, const A& a) {
  const HeadPlaces at(a.layout, a.heads, a.kv_heads, head_dim, sources);
  AttentionInputs<S> in{at,
                        at.scale(),
                        a.qkv.data,
                        nullptr,
                        nullptr,
                        0,
                        a.prefix_k.data,
                        a.prefix_v.data,
                        a.prefix_k ? static_cast<int>(a.prefix_k.extent[2]) : 0,
                        a.layout.past.data,
                        a.layout.starts.data};
  if constexpr (requires { a.keys; }) {
    if (a.keys) {
      in.keys = a.keys.data;
      in.values = a.values.data;
      in.capacity = a.keys.extent[2];
    }
  }
  return in;
}

/// delta = sum over all features of d_out * out of a query, what the softmax's derivative subtracts, for the
/// queries of all streams: [P*B,A,padded], of which S are used.
struct Deltas {
  float* data;
  Index padded;
  __device__ float& at(const HeadPlaces& at, Index row, int head) const {
    return data[(row / at.tokens * at.heads + head) * padded + row % at.tokens];
  }
};

/// What the backward reads beside its inputs, and what it writes.
template <class S>
struct AttentionGradients {
  const S* d_out;
  const float* log_sum;  ///< [M,A]
  Deltas delta;
  S* d_qkv;
  float *d_prefix_k = nullptr, *d_prefix_v = nullptr;  ///< [B,P,G,T,D] parts of each sequence, or null
};

/// Keys [first, first + n) of a stream or of its prefix; rows beyond `count` do not exist.
template <class S>
struct KeyTile {
  const S *k, *v;  ///< row 0 of the tile
  Index stride;
  Index first, count;
  bool own;

  __device__ const S* key(int i) const { return first + i < count ? k + i * stride : nullptr; }
  __device__ const S* value(int i) const { return first + i < count ? v + i * stride : nullptr; }
};

template <class S>
__device__ KeyTile<S> prefix_tile(const AttentionInputs<S>& a, Index stream, int kv_head, Index first) {
  const Index dim = a.at.dim, head = stream / a.at.sequences * a.at.kv_heads + kv_head;
  const Index place = (head * a.prefix + first) * dim;
  return {a.prefix_k + place, a.prefix_v + place, dim, first, a.prefix, false};
}

template <class S>
__device__ KeyTile<S> own_tile(const AttentionInputs<S>& a, Index stream, int kv_head, Index first) {
  const HeadPlaces& at = a.at;
  if (a.keys != nullptr) {
    const Index place = ((stream * at.kv_heads + kv_head) * a.capacity + first) * at.dim;
    const Index past = a.past != nullptr ? a.past[stream % at.sequences] : 0;
    return {a.keys + place, a.values + place, at.dim, first, past + at.tokens, true};
  }
  const Index row = stream * at.tokens + first;
  return {a.qkv + at.key(row, kv_head), a.qkv + at.value(row, kv_head), at.qkv_width, first, at.tokens, true};
}

/// Queries of one (stream, key/value head): its tokens with all heads of the group, head fastest. A tile is
/// some of them in order, so that one token alone already fills a tile with its heads.
template <class S>
struct Queries {
  const AttentionInputs<S>& a;
  Index stream;
  int kv_head;

  __device__ int count() const { return static_cast<int>(a.at.tokens) * a.at.group; }
  __device__ int token(int i) const { return i / a.at.group; }
  __device__ Index row(int i) const { return stream * a.at.tokens + token(i); }
  __device__ int head(int i) const { return kv_head * a.at.group + i % a.at.group; }

  /// The own keys that a token sees: [begin, end). Neither ever decreases from token to token.
  __device__ Index begin(int token) const {
    return a.starts != nullptr ? a.starts[stream % a.at.sequences * a.at.tokens + token] : 0;
  }
  __device__ Index end(int token) const {
    return (a.past != nullptr ? a.past[stream % a.at.sequences] : 0) + token + 1;
  }
  /// The first token that begins behind this key.
  __device__ int first_behind(Index key) const {
    int low = 0, high = static_cast<int>(a.at.tokens);
    if (a.starts == nullptr) return high;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (begin(middle) > key)
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }
};

/// Keys of a tile that a query sees, counted from the tile's first: [low, high).
struct Seen {
  int low, high;
  __device__ bool operator()(int key) const { return key >= low && key < high; }
};
/// Query i, which may be missing, and a tile of `size` keys.
template <class S>
__device__ Seen seen(const Queries<S>& queries, int i, const KeyTile<S>& keys, int size) {
  if (i >= queries.count()) return {0, 0};
  const int token = queries.token(i);
  const Index low = keys.own ? queries.begin(token) : 0, high = keys.own ? queries.end(token) : keys.count;
  return {static_cast<int>(max(low - keys.first, Index{0})),
          static_cast<int>(min(high - keys.first, Index{size}))};
}
/// Whether all queries [from, to) see all `size` keys of a tile: then nothing needs to be hidden.
template <class S>
__device__ bool all_seen(const Queries<S>& queries, int from, int to, const KeyTile<S>& keys, int size) {
  if (!keys.own) return keys.first + size <= keys.count;
  return keys.first + size <= queries.end(queries.token(from)) &&
         queries.begin(queries.token(to - 1)) <= keys.first;
}

/// The tiles of keys that queries [from, to) go through: the prefix's, then the own ones.
template <class S>
struct KeyWalk {
  const Queries<S>& queries;
  Index size, prefix_tiles, own_first, count;

  __device__ KeyWalk(const Queries<S>& q, int from, int to, int tile)
      : queries(q),
        size(tile),
        prefix_tiles(tiles_of(q.a.prefix, tile)),
        own_first(q.begin(q.token(from)) / tile),
        count(prefix_tiles + tiles_of(q.end(q.token(to - 1)), tile) - own_first) {}
  __device__ KeyTile<S> tile(Index t) const {
    if (t < prefix_tiles) return prefix_tile(queries.a, queries.stream, queries.kv_head, t * size);
    return own_tile(queries.a, queries.stream, queries.kv_head, (own_first + t - prefix_tiles) * size);
  }
};

/// What a block works on: a tile, counted over all of a (stream, key/value head)'s, and whose. Blocks of
/// equal tiles are neighbours in the grid.
struct TileOfBlock {
  Index stream;
  int kv_head;
  Index tile;
  __device__ explicit TileOfBlock(const HeadPlaces& at) {
    const Index pairs = at.streams() * at.kv_heads, pair = blockIdx.x % pairs;
    stream = pair / at.kv_heads;
    kv_head = static_cast<int>(pair % at.kv_heads);
    tile = blockIdx.x / pairs;
  }
};

/// Blocks of a launch, which the device counts in 31 bits.
inline unsigned grid_size(Index blocks) {
  check(blocks < (Index{1} << 31) ? cudaSuccess : cudaErrorInvalidConfiguration,
        "more blocks than a grid has");
  return static_cast<unsigned>(blocks);
}

}  // namespace parscale::cuda
