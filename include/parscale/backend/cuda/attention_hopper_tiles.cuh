/// How Hopper's attention forward is cut: tiles of queries of one head, the tiles of keys that each sees,
/// where they lie in shared memory, and the thread that brings them there.
#pragma once

#include "wgmma.cuh"

namespace parscale::cuda::hopper {

/// Sizes, such that a multiplying thread's results (D/2 floats), scores (keys/2) and weights (keys/4 words)
/// fit in its registers, and the stages in shared memory.
template <int D>
struct AttendTiles {
  static constexpr int warpgroups = 2;  ///< that multiply
  static constexpr int threads = (warpgroups + 1) * warpgroup_size;
  static constexpr int loader_registers = 24, registers = 240;
  static constexpr int rows = 64;  ///< queries of a warpgroup
  static constexpr int queries = warpgroups * rows, keys = 128, prefix_keys = 64;
  static constexpr int stages = 2;  ///< of queries, keys and values in shared memory
  static constexpr int panels = D / panel_columns;
};

/// All that the kernel is told. Coordinates of qkv's boxes: 0, token, panel of 64 columns, stream = replica *
/// B + sequence; of the prefix's: 0, token, panel, replica * G + head.
struct AttendPlan {
  CUtensorMap queries, keys, prefix_k, prefix_v;
  int streams, sequences, tokens, heads, kv_heads, prefix;
  int sources;  ///< blocks of A*D columns in a row of out: P when expanded, else 1
  const std::int32_t* starts;
  __nv_bfloat16* out;
  float* log_sum;
  float scale;  ///< log2(e) / sqrt(D)
};

/// One tile of queries of one head, and the tiles of keys that it sees.
template <int D>
struct AttendWork {
  using Tiles = AttendTiles<D>;
  int stream, head, query;    ///< the first query
  int first, last, prefixes;  ///< tiles of own keys, downwards, and of the prefix

  __device__ AttendWork(const AttendPlan& plan, int number) {
    const int lanes = plan.streams * plan.heads, tiles = (plan.tokens + Tiles::queries - 1) / Tiles::queries;
    head = number % plan.heads;
    stream = number % lanes / plan.heads;
    query = (tiles - 1 - number / lanes) * Tiles::queries;  // the longest first
    first = (min(query + Tiles::queries, plan.tokens) - 1) / Tiles::keys;
    last = plan.starts == nullptr ? 0 : start(plan, query) / Tiles::keys;
    prefixes = (plan.prefix + Tiles::prefix_keys - 1) / Tiles::prefix_keys;
  }
  /// The first key of a query's document; documents follow each other, so that it never decreases.
  __device__ int start(const AttendPlan& plan, int token) const {
    return plan.starts == nullptr
               ? 0
               : plan.starts[stream % plan.sequences * plan.tokens + min(token, plan.tokens - 1)];
  }
  __device__ int own() const { return first - last + 1; }
  __device__ int tiles() const { return own() + prefixes; }
};

/// f(work) for the works of this block: a fixed share, dealt to and fro since they shrink.
template <int D, class F>
__device__ void each_work(const AttendPlan& plan, F f) {
  using Tiles = AttendTiles<D>;
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  const int count = plan.streams * plan.heads * ((plan.tokens + Tiles::queries - 1) / Tiles::queries);
  for (int round = 0; round * blocks < count; ++round) {
    const int number = round * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
    if (number < count) f(AttendWork<D>(plan, number));
  }
}

template <int D>
struct AttendShared {
  using Tiles = AttendTiles<D>;
  static constexpr int stages = Tiles::stages;
  alignas(1024) __nv_bfloat16 queries[stages][Tiles::warpgroups][Tiles::rows * D];
  alignas(1024) __nv_bfloat16 keys[stages][Tiles::keys * D];
  alignas(1024) __nv_bfloat16 values[stages][Tiles::keys * D];
  Barrier queries_full[stages], keys_full[stages], values_full[stages];
  Barrier queries_free[stages], keys_free[stages], values_free[stages];

  __device__ void init() {
    for (int s = 0; s < stages; ++s) {
      for (Barrier* full : {queries_full, keys_full, values_full}) full[s].init(1);
      for (Barrier* free : {queries_free, keys_free, values_free})
        free[s].init(Tiles::warpgroups * warpgroup_size / warp_size);
    }
    Barrier::fence_initialised();
  }
};

/// The thread that loads. It runs ahead of the others as far as the stages reach.
template <int D>
class AttendLoader {
  using Tiles = AttendTiles<D>;
  using Place = RingPlace<Tiles::stages>;

 public:
  __device__ AttendLoader(const AttendPlan& plan, AttendShared<D>& shared) : plan_(plan), shared_(shared) {}

  __device__ void run(const AttendWork<D>& work) {
    load_queries(work);
    load_tile<true>(work, 0);
    for (int tile = 1; tile < work.tiles(); ++tile) {
      load_tile<true>(work, tile);
      load_tile<false>(work, tile - 1);
    }
    load_tile<false>(work, work.tiles() - 1);
  }

 private:
  __device__ void load_queries(const AttendWork<D>& work) {
    const int s = queries_.stage;
    shared_.queries_free[s].wait(queries_.parity ^ 1);
    shared_.queries_full[s].arrive_and_expect(static_cast<int>(sizeof(shared_.queries[s])));
    for (int w = 0; w < Tiles::warpgroups; ++w)
      load_box(shared_.queries[s][w], plan_.queries, shared_.queries_full[s], 0, work.query + w * Tiles::rows,
               work.head * Tiles::panels, work.stream);
    queries_.advance();
  }

  template <bool are_keys>
  __device__ void load_tile(const AttendWork<D>& work, int tile) {
    Place& place = are_keys ? keys_ : values_;
    const int s = place.stage, own = work.own(), kv_head = work.head / (plan_.heads / plan_.kv_heads);
    Barrier& full = are_keys ? shared_.keys_full[s] : shared_.values_full[s];
    __nv_bfloat16* to = are_keys ? shared_.keys[s] : shared_.values[s];
    (are_keys ? shared_.keys_free[s] : shared_.values_free[s]).wait(place.parity ^ 1);
    full.arrive_and_expect((tile < own ? Tiles::keys : Tiles::prefix_keys) * D * 2);
    if (tile < own)
      load_box(to, plan_.keys, full, 0, (work.first - tile) * Tiles::keys,
               (plan_.heads + (are_keys ? 0 : plan_.kv_heads) + kv_head) * Tiles::panels, work.stream);
    else
      load_box(to, are_keys ? plan_.prefix_k : plan_.prefix_v, full, 0, (tile - own) * Tiles::prefix_keys, 0,
               work.stream / plan_.sequences * plan_.kv_heads + kv_head);
    place.advance();
  }

  const AttendPlan& plan_;
  AttendShared<D>& shared_;
  Place queries_, keys_, values_;
};

}  // namespace parscale::cuda::hopper
