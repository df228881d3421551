/// Causal attention over a prefix and a stream's own keys: a block takes a tile of queries through tiles of
/// keys. Softmax is kept as a running maximum and a running sum, so no more than one tile of scores exists.
/// Few queries and many cached keys (decoding) are split over the keys, and their results merged.
#pragma once

#include "attend_across.cuh"
#include "attention_hopper.cuh"
#include "attention_tiles.cuh"

namespace parscale::cuda {

/// Softmax over keys that arrive in tiles, for the rows of which a thread holds a share.
template <class Tiles>
struct RunningSoftmax {
  float top[Tiles::rows], total[Tiles::rows];

  __device__ RunningSoftmax() {
#pragma unroll
    for (int i = 0; i < Tiles::rows; ++i) {
      top[i] = -INFINITY;
      total[i] = 0;
    }
  }
  /// Products (-inf where hidden) become 2^(scale product - scale top); sums shrink with the old total.
  __device__ void take(typename Tiles::Scores& scores, typename Tiles::Sums& sums, float scale) {
#pragma unroll
    for (int i = 0; i < Tiles::rows; ++i) {
      float greatest = top[i];
#pragma unroll
      for (int j = 0; j < Tiles::columns; ++j) greatest = fmaxf(greatest, scores[i][j]);
      greatest = lanes_max<Tiles::row_lanes>(greatest);
      const float base = greatest == -INFINITY ? 0 : greatest * scale;
      const float shrink = power_of_two(fmaf(top[i], scale, -base));
      top[i] = greatest;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < Tiles::columns; ++j) {
        scores[i][j] = power_of_two(fmaf(scores[i][j], scale, -base));
        sum += scores[i][j];
      }
      total[i] = total[i] * shrink + sum;  // of this thread's columns
#pragma unroll
      for (int c = 0; c < Tiles::features; ++c) sums[i][c] *= shrink;
    }
  }
  __device__ float sum(int i) const { return lanes_sum<Tiles::row_lanes>(total[i]); }
};

/// Where results go: out and log_sum (or null) themselves, or a part of each for every share of the keys.
template <class T>
struct AttentionResult {
  T* out;
  float* log_sum;
  int shares = 1;

  __device__ T* out_of(const HeadPlaces& at, int share, Index row, int head) const {
    if (shares == 1) return out + at.own_out(row, head);
    return out + ((share * at.rows() + row) * at.heads + head) * at.dim;
  }
  __device__ void put_log_sum(const HeadPlaces& at, int share, Index row, int head, float value) const {
    if (log_sum != nullptr) log_sum[(share * at.rows() + row) * at.heads + head] = value;
  }
};

/// The own part of attention: one block a tile of queries (the last tokens first, because they see most) and
/// a share of the keys.
template <class Tiles, class S, class T>
__global__ void __launch_bounds__(Tiles::threads) attend_kernel(AttentionInputs<S> a, AttentionResult<T> to) {
  extern __shared__ __align__(256) float4 shared[];
  auto* q_tile = reinterpret_cast<typename Tiles::Element*>(shared);
  auto *k_tile = q_tile + Tiles::tall, *v_tile = k_tile + Tiles::wide, *work = v_tile + Tiles::wide;
  const HeadPlaces& at = a.at;
  const TileOfBlock block(at);
  const Queries<S> queries{a, block.stream, block.kv_head};
  const int tiles = static_cast<int>(tiles_of(queries.count(), Tiles::height));
  const int share = static_cast<int>(block.tile) / tiles;
  const int first = (tiles - 1 - static_cast<int>(block.tile) % tiles) * Tiles::height;
  const int end = min(first + Tiles::height, queries.count());
  const KeyWalk<S> walk(queries, first, end, Tiles::width);
  const Index begin_tile = walk.count * share / to.shares, end_tile = walk.count * (share + 1) / to.shares;

  load_queries<Tiles, Tiles::height>(q_tile, queries, first, end, a.qkv,
                                     [&](Index row, int head) { return at.query(row, head); });
  if (begin_tile < end_tile) load_keys<Tiles>(k_tile, walk.tile(begin_tile), at.dim);
  typename Tiles::Sums sums{};
  RunningSoftmax<Tiles> softmax;
  for (Index t = begin_tile; t < end_tile; ++t) {
    const KeyTile<S> keys = walk.tile(t);
    Tiles::template wait<0>();
    __syncthreads();  // keys are there, the values before are done with
    load_values<Tiles>(v_tile, keys, at.dim);
    typename Tiles::Scores scores;
    Tiles::products(scores, q_tile, k_tile, at.dim);
    if (!all_seen(queries, first, end, keys, Tiles::width)) hide<Tiles>(scores, queries, first, keys);
    softmax.take(scores, sums, a.scale * log2_e);
    Tiles::template wait<0>();
    __syncthreads();  // values are there, the keys are done with
    if (t + 1 < end_tile) load_keys<Tiles>(k_tile, walk.tile(t + 1), at.dim);
    Tiles::add_products(sums, scores, v_tile, work);
  }
#pragma unroll
  for (int i = 0; i < Tiles::rows; ++i) {
    const float total = softmax.sum(i);
    const int query = first + Tiles::row(i);
    if (query >= end) continue;
    const Index row = queries.row(query);
    const int head = queries.head(query);
    store_row<Tiles>(sums[i], total > 0 ? 1 / total : 0, at.dim, to.out_of(at, share, row, head));
    const float log2_sum = total > 0 ? softmax.top[i] * a.scale * log2_e + log2f(total) : -INFINITY;
    if (Tiles::column(0) == 0) to.put_log_sum(at, share, row, head, log2_sum * ln_2);
  }
}

/// Attention over shares of the keys becomes attention over all of them.
template <class S>
void merge_shares(const Launch& on, const HeadPlaces& places, const AttentionResult<float>& parts,
                  const AttentionResult<S>& to) {
  const HeadPlaces at = places;
  const int lanes = lanes_of_head(at.dim);
  lanes_each(on, "attend", at.rows() * at.heads, lanes, [=] __device__(Index task, int lane) {
    const int d = lane * Features::count, head = static_cast<int>(task % at.heads);
    const Index row = task / at.heads;
    if (task < 0 || d >= at.dim) return;
    const float* log_sums = parts.log_sum + task;
    const Index step = at.rows() * at.heads;
    float top = -INFINITY, total = 0;
    for (int s = 0; s < parts.shares; ++s) top = fmaxf(top, log_sums[s * step]);
    Features sum{};
    for (int s = 0; s < parts.shares; ++s) {
      const float weight = expf(log_sums[s * step] - top);
      total += weight;
      sum.add(load_features(parts.out_of(at, s, row, head) + d), weight);
    }
    store_features(sum * (1 / total), to.out_of(at, 0, row, head) + d);
    if (lane == 0) to.put_log_sum(at, 0, row, head, top + logf(total));
  });
}

/// Among how many blocks the keys of a tile of queries are shared: one, unless there are few tiles and the
/// keys come from a cache.
template <class S>
int key_shares(const Launch& on, const AttentionInputs<S>& in, Index tiles, int width) {
  const Index blocks = tiles * in.at.streams() * in.at.kv_heads;
  if (in.keys == nullptr || 2 * blocks > on.multiprocessors) return 1;
  return static_cast<int>(std::min(2 * on.multiprocessors / blocks, tiles_of(in.capacity, 2 * width)));
}

/// The own part by tiles that suit type and head size. Shares leave their parts in scratch memory.
template <class S>
void attend_tiles(const Launch& on, const AttentionInputs<S>& in, const AttentionResult<S>& out,
                  float* memory) {
  const auto with = [&]<class Tiles>(Tiles) {
    const Index tiles = tiles_of(in.at.tokens * in.at.group, Tiles::height);
    const int shares = key_shares(on, in, tiles, Tiles::width);
    const auto launch = [&]<class T>(const AttentionResult<T>& to) {
      launch_tiles<Tiles>(on, "attend", attend_kernel<Tiles, S, T>,
                          shares * tiles * in.at.streams() * in.at.kv_heads,
                          Tiles::tall + 2 * Tiles::wide + Tiles::work_elements, 0, in, to);
    };
    if (shares == 1) return launch(out);
    const Index results = shares * in.at.rows() * in.at.heads;
    const AttentionResult<float> parts{memory, memory + results * in.at.dim, shares};
    launch(parts);
    merge_shares(on, in.at, parts, out);
  };
  if constexpr (std::is_same_v<S, BFloat16>) {
    if (in.at.dim <= 64) return with(MmaTiles<64, 2>{});
    if (in.at.dim <= 128) return with(MmaTiles<128, 2>{});
  } else {
    if (in.at.dim <= 64) return with(FmaTiles<64>{});
    if (in.at.dim <= 128) return with(FmaTiles<128>{});
  }
  with(FmaTiles<256>{});
}

/// Elements of float scratch memory that attention takes at most: with a cache what shares of the keys leave
/// (there are many only where there are few queries), then the log of the sums for the crossing part.
inline Index attend_scratch(const Launch& on, const Layout& layout, Index heads, int head_dim, bool cached) {
  const Index results = layout.rows() * heads;
  return results + (cached ? std::min<Index>(results, 128) * 2 * on.multiprocessors * (head_dim + 1) : 0);
}

/// f(Int<D>) for the head sizes that Hopper's kernels know.
template <class F>
void with_hopper_head(int head_dim, F f) {
  if (head_dim == 64) return f(Int<64>{});
  f(Int<128>{});
}

/// Both kinds: P = 1 attends within a stream; P > 1 expands to the other replicas, whose keys at a query's
/// own position enter its softmax after the own part is known.
template <class S>
void attend(const Launch& on, int head_dim, int P, op::Attend<S, float> a) {
  const AttentionInputs<S> in = attention_inputs<S>(head_dim, P, a);
  if (in.at.positions == 0) return;
  const Index size = attend_scratch(on, a.layout, a.heads, head_dim, bool(a.keys));
  auto* memory = on.scratch.take<float>(size);
  const Index results = in.at.rows() * a.heads;
  if (P > 1 && !a.log_sum) a.log_sum = {memory + size - results, {in.at.rows(), a.heads}};
  const auto own = [&] {
    if constexpr (std::is_same_v<S, BFloat16>) {
      if (attend_hopper_takes(on, a))
        return with_hopper_head(head_dim, [&]<int D>(Int<D>) { attend_hopper<D>(on, P, a); });
    }
    attend_tiles<S>(on, in, {a.out.data, a.log_sum.data}, memory);
  };
  own();
  if (P > 1) attend_across<S>(on, in, a.out.data, a.log_sum.data);
}

}  // namespace parscale::cuda
