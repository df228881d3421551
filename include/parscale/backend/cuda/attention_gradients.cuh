/// Gradients of attention tile by tile. Softmax weights come back from the kept log of their sum; one kernel
/// takes tiles of queries through the keys for d_q, another tiles of keys through the queries for d_k and
/// d_v, so that every sum has one owner and a fixed order.
#pragma once

#include "attention_tiles.cuh"

namespace parscale::cuda {

/// A product q k (-inf where hidden) becomes the key's weight, the weight's gradient that of the product, up
/// to the scale of products.
__device__ inline void soften(float& product, float& d_weight, float scale, float log2_sum, float delta) {
  product = power_of_two(fmaf(product, scale * log2_e, -log2_sum));
  d_weight = product * (d_weight - delta);
}

/// What the backward kept of a query.
template <class S>
__device__ void statistics(const Queries<S>& queries, const AttentionGradients<S>& g, int query,
                           float& log2_sum, float& delta) {
  const Index row = queries.row(query);
  const int head = queries.head(query);
  log2_sum = g.log_sum[row * queries.a.at.heads + head] * log2_e;
  delta = g.delta.at(queries.a.at, row, head);
}

/// d_q of one tile of queries.
template <class Tiles, class S>
__global__ void __launch_bounds__(Tiles::threads)
    attend_query_gradient_kernel(AttentionInputs<S> a, AttentionGradients<S> g) {
  extern __shared__ __align__(256) float4 shared[];
  auto* q_tile = reinterpret_cast<typename Tiles::Element*>(shared);
  auto *d_out_tile = q_tile + Tiles::tall, *k_tile = d_out_tile + Tiles::tall;
  auto *v_tile = k_tile + Tiles::wide, *work = v_tile + Tiles::wide;
  const HeadPlaces& at = a.at;
  const TileOfBlock block(at);
  const Queries<S> queries{a, block.stream, block.kv_head};
  const int tiles = static_cast<int>(tiles_of(queries.count(), Tiles::height));
  const int first = (tiles - 1 - static_cast<int>(block.tile)) * Tiles::height;  // the longest first
  const int end = min(first + Tiles::height, queries.count());
  const KeyWalk<S> walk(queries, first, end, Tiles::width);

  load_queries<Tiles, Tiles::height>(q_tile, queries, first, end, a.qkv,
                                     [&](Index row, int head) { return at.query(row, head); });
  load_queries<Tiles, Tiles::height>(d_out_tile, queries, first, end, g.d_out,
                                     [&](Index row, int head) { return at.own_out(row, head); });
  load_values<Tiles>(v_tile, walk.tile(0), at.dim);
  float log2_sum[Tiles::rows]{}, delta[Tiles::rows]{};
#pragma unroll
  for (int i = 0; i < Tiles::rows; ++i)
    if (first + Tiles::row(i) < end) statistics(queries, g, first + Tiles::row(i), log2_sum[i], delta[i]);
  typename Tiles::Sums d_q{};
  for (Index t = 0; t < walk.count; ++t) {
    const KeyTile<S> keys = walk.tile(t);
    typename Tiles::Scores products, d_weights;
    Tiles::template wait<0>();
    __syncthreads();  // values are there, the keys before are done with
    load_keys<Tiles>(k_tile, keys, at.dim);
    Tiles::products(d_weights, d_out_tile, v_tile, at.dim);
    Tiles::template wait<0>();
    __syncthreads();  // keys are there, the values are done with
    if (t + 1 < walk.count) load_values<Tiles>(v_tile, walk.tile(t + 1), at.dim);
    Tiles::products(products, q_tile, k_tile, at.dim);
    if (!all_seen(queries, first, end, keys, Tiles::width)) hide<Tiles>(products, queries, first, keys);
#pragma unroll
    for (int i = 0; i < Tiles::rows; ++i)
#pragma unroll
      for (int j = 0; j < Tiles::columns; ++j)
        soften(products[i][j], d_weights[i][j], a.scale, log2_sum[i], delta[i]);
    Tiles::add_products(d_q, d_weights, k_tile, work);
  }
#pragma unroll
  for (int i = 0; i < Tiles::rows; ++i) {
    const int query = first + Tiles::row(i);
    if (query < end)
      store_row<Tiles>(d_q[i], a.scale, at.dim, g.d_qkv + at.query(queries.row(query), queries.head(query)));
  }
}

/// What a tile of queries in columns needs of each: in shared memory, for a thread has many columns.
template <class Tiles>
struct QueryColumns {
  float log2_sum[Tiles::width], delta[Tiles::width];
  Seen sees[Tiles::width];

  /// For the queries [first, end).
  template <class S>
  __device__ void fill(const Queries<S>& queries, const AttentionGradients<S>& g, const KeyTile<S>& keys,
                       int first, int end) {
    for (int i = static_cast<int>(threadIdx.x); i < Tiles::width; i += Tiles::threads) {
      log2_sum[i] = delta[i] = 0;
      if (first + i < end) statistics(queries, g, first + i, log2_sum[i], delta[i]);
      sees[i] = seen(queries, first + i, keys, Tiles::height);
    }
  }
  __device__ void hide(typename Tiles::Scores& scores) const {
#pragma unroll
    for (int j = 0; j < Tiles::columns; ++j) {
      const Seen key_sees = sees[Tiles::column(j)];
#pragma unroll
      for (int i = 0; i < Tiles::rows; ++i)
        if (!key_sees(Tiles::row(i))) scores[i][j] = -INFINITY;
    }
  }
  __device__ void soften_all(typename Tiles::Scores& products, typename Tiles::Scores& d_weights,
                             float scale) const {
#pragma unroll
    for (int j = 0; j < Tiles::columns; ++j) {
      const int column = Tiles::column(j);
#pragma unroll
      for (int i = 0; i < Tiles::rows; ++i)
        soften(products[i][j], d_weights[i][j], scale, log2_sum[column], delta[column]);
    }
  }
};

/// A thread's share of d_k and d_v goes to the keys' rows, or to the sequence's part of the prefix's
/// gradient.
template <class Tiles, class S>
__device__ void store_keys(const typename Tiles::Sums& d_k, const typename Tiles::Sums& d_v,
                           const AttentionInputs<S>& a, const AttentionGradients<S>& g,
                           const TileOfBlock& block, const KeyTile<S>& keys) {
  const HeadPlaces& at = a.at;
  const auto write = [&](int i, auto* k, auto* v) {
    store_row<Tiles>(d_k[i], a.scale, at.dim, k);
    store_row<Tiles>(d_v[i], 1, at.dim, v);
  };
#pragma unroll
  for (int i = 0; i < Tiles::rows; ++i) {
    const Index key = keys.first + Tiles::row(i);
    if (key >= keys.count) continue;
    if (keys.own) {
      const Index row = block.stream * at.tokens + key;
      write(i, g.d_qkv + at.key(row, block.kv_head), g.d_qkv + at.value(row, block.kv_head));
    } else {
      const Index replica = block.stream / at.sequences, sequence = block.stream % at.sequences;
      const Index head = (sequence * at.replicas + replica) * at.kv_heads + block.kv_head;
      const Index place = (head * a.prefix + key) * at.dim;
      write(i, g.d_prefix_k + place, g.d_prefix_v + place);
    }
  }
}

/// d_k and d_v of one tile of keys: a prefix's (first in the grid: every query sees them) or a stream's own.
template <class Tiles, class S>
__global__ void __launch_bounds__(Tiles::threads)
    attend_key_gradient_kernel(AttentionInputs<S> a, AttentionGradients<S> g) {
  extern __shared__ __align__(256) float4 shared[];
  auto* k_tile = reinterpret_cast<typename Tiles::Element*>(shared);
  auto *v_tile = k_tile + Tiles::tall, *d_out_tile = v_tile + Tiles::tall,
       *q_tiles = d_out_tile + Tiles::wide;
  auto* work = q_tiles + Tiles::stages * Tiles::wide;
  auto* columns = reinterpret_cast<QueryColumns<Tiles>*>(work + Tiles::work_elements);  // two, in turns
  const HeadPlaces& at = a.at;
  const TileOfBlock block(at);
  const Queries<S> queries{a, block.stream, block.kv_head};
  const Index prefix_tiles = g.d_prefix_k != nullptr ? tiles_of(a.prefix, Tiles::height) : 0;
  const Index tile = block.tile < prefix_tiles ? block.tile : block.tile - prefix_tiles;
  const KeyTile<S> keys = block.tile < prefix_tiles
                              ? prefix_tile(a, block.stream, block.kv_head, tile * Tiles::height)
                              : own_tile(a, block.stream, block.kv_head, tile * Tiles::height);
  // Earlier tokens do not see the keys, nor do later documents.
  const int from = keys.own ? static_cast<int>(keys.first) * at.group : 0;
  const int end =
      keys.own ? queries.first_behind(keys.first + Tiles::height - 1) * at.group : queries.count();
  const auto load_next = [&](int first, auto* q_tile) {
    load_queries<Tiles, Tiles::width>(q_tile, queries, first, end, a.qkv,
                                      [&](Index row, int head) { return at.query(row, head); });
  };

  Tiles::template load_tile<Tiles::height>(k_tile, at.dim, [&](int i) { return keys.key(i); });
  Tiles::template load_tile<Tiles::height>(v_tile, at.dim, [&](int i) { return keys.value(i); });
  if (Tiles::stages > 1) load_next(from, q_tiles);
  Tiles::commit();
  typename Tiles::Sums d_k{}, d_v{};
  int turn = 0;
  for (int first = from; first < end; first += Tiles::width, turn ^= 1) {
    auto* q_tile = q_tiles + turn % Tiles::stages * Tiles::wide;
    if (Tiles::stages == 1) {
      __syncthreads();  // the queries before are done with
      load_next(first, q_tile);
    }
    columns[turn].fill(queries, g, keys, first, end);
    Tiles::template wait<0>();
    __syncthreads();  // queries are there, d_out and the other queries before are done with
    load_queries<Tiles, Tiles::width>(d_out_tile, queries, first, end, g.d_out,
                                      [&](Index row, int head) { return at.own_out(row, head); });
    Tiles::commit();
    if (Tiles::stages > 1) load_next(first + Tiles::width, q_tiles + (turn ^ 1) * Tiles::wide);
    Tiles::commit();
    typename Tiles::Scores products, d_weights;
    Tiles::products(products, k_tile, q_tile, at.dim);
    Tiles::template wait<1>();
    __syncthreads();  // d_out is there
    Tiles::products(d_weights, v_tile, d_out_tile, at.dim);
    if (!all_seen(queries, first, min(first + Tiles::width, end), keys, Tiles::height))
      columns[turn].hide(products);
    columns[turn].soften_all(products, d_weights, a.scale);
    Tiles::add_products(d_v, products, d_out_tile, work);
    Tiles::add_products(d_k, d_weights, q_tile, work);
  }
  store_keys<Tiles>(d_k, d_v, a, g, block, keys);
}

}  // namespace parscale::cuda
