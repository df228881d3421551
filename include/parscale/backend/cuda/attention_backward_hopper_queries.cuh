/// Gradients of queries on Hopper: a block takes 128 queries of one head past the prefix's and their own
/// keys, like a forward whose softmax is already known. Blocks stay and take one such work after the other,
/// so that the next queries come while the last keys are still multiplied.
#pragma once

#include "attention_backward_hopper_tiles.cuh"

namespace parscale::cuda::hopper {

template <int D>
struct QueryGradients {
  static constexpr int queries = 128, keys = 128;
  static constexpr int prefix_keys = 64;  ///< of a tile of the prefix
  static constexpr int stages = D == 128 ? 2 : 4;

  struct Stage {
    Tile<D, 2> k, v;
  };

  static __host__ __device__ int query_tiles(const BackwardCall& call) {
    return (call.tokens + queries - 1) / queries;
  }
  static __host__ __device__ int works(const BackwardCall& call) {
    return query_tiles(call) * call.streams * call.heads;
  }

  /// One work: tiles of the prefix first, then the own ones up to the queries themselves.
  struct Work {
    int stream, head, first_query;
    int prefix_tiles, first_own_tile, own_tiles;

    __device__ Work(const BackwardCall& call, int number) {
      const int rows = call.streams * call.heads;
      const int tile = query_tiles(call) - 1 - number / rows;  // the longest first
      stream = number % rows / call.heads;
      head = number % rows % call.heads;
      first_query = tile * queries;
      prefix_tiles = (call.prefix + prefix_keys - 1) / prefix_keys;
      const std::int32_t* starts = call.starts_of(stream);
      first_own_tile = starts == nullptr ? 0 : starts[first_query] / keys;
      own_tiles = tile + 1 - first_own_tile;
    }
    __device__ int tiles() const { return prefix_tiles + own_tiles; }
    __device__ bool own(int tile) const { return tile >= prefix_tiles; }
    __device__ bool last(int tile) const { return tile + 1 == tiles(); }
    __device__ int first_key(int tile) const {
      return own(tile) ? (tile - prefix_tiles + first_own_tile) * keys : tile * prefix_keys;
    }
  };

  struct Shared {
    Tile<D, 2> q, d_out;
    Stage stage[stages];
    Barrier fetched_queries, free_queries, fetched[stages], free[stages];
  };

  /// Calls f(work) for the works of this block: from the longest to the shortest, forth and back, so that all
  /// blocks get about the same.
  template <class F>
  static __device__ __forceinline__ void each_work(const BackwardCall& call, F f) {
    const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    for (int round = 0; round * blocks < works(call); ++round) {
      const int number = round * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
      if (number < works(call)) f(Work(call, number));
    }
  }

  /// The copying thread.
  struct Fetcher {
    Shared& shared;
    const BackwardMaps& maps;
    const BackwardCall& call;
    RingPlace<stages> place;
    int queries_parity = 1;

    __device__ void run() {
      each_work(call, [&](const Work& work) {
        fetch_keys(work, 0);
        fetch_queries(work);
        for (int tile = 1; tile < work.tiles(); ++tile) fetch_keys(work, tile);
      });
    }
    __device__ void fetch_queries(const Work& work) {
      shared.free_queries.wait(queries_parity);
      queries_parity ^= 1;
      shared.fetched_queries.arrive_and_expect(2 * Tile<D, 2>::bytes);
      shared.q.load(maps.qkv, shared.fetched_queries, work.head * D, work.first_query, work.stream);
      shared.d_out.load(maps.d_out, shared.fetched_queries, call.d_out_column(work.stream, work.head, D),
                        work.first_query, work.stream);
    }
    __device__ void fetch_keys(const Work& work, int tile) {
      Barrier& fetched = shared.fetched[place.stage];
      Stage& stage = shared.stage[place.stage];
      shared.free[place.stage].wait(place.parity ^ 1);
      place.advance();
      const int kv_head = work.head / call.group, key = work.first_key(tile);
      if (work.own(tile)) {
        const int k_column = (call.heads + kv_head) * D, v_column = k_column + call.kv_heads * D;
        fetched.arrive_and_expect(2 * Tile<D, 2>::bytes);
        stage.k.load(maps.qkv, fetched, k_column, key, work.stream);
        stage.v.load(maps.qkv, fetched, v_column, key, work.stream);
      } else {
        const int head = call.prefix_head(work.stream, kv_head);
        fetched.arrive_and_expect(Tile<D, 2>::bytes);
        stage.k.load_half(maps.prefix_k, fetched, 0, key, head);
        stage.v.load_half(maps.prefix_v, fetched, 0, key, head);
      }
    }
  };

  /// What a thread knows of its two rows of queries.
  struct Rows {
    float log2_sum[2], delta[2];
    int query, start[2];
    int latest_start;  ///< of the worker's queries

    __device__ Rows(const BackwardCall& call, const Work& work, int worker) {
      query = work.first_query + worker * panel_rows + accumulator_row();
      const std::int32_t* starts = call.starts_of(work.stream);
      const Index at = call.statistics(work.stream, work.head);
      const int last = min(work.first_query + (worker + 1) * panel_rows, call.tokens) - 1;
      latest_start = starts == nullptr ? 0 : starts[last];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int token = query + 8 * i;
        log2_sum[i] = call.log2_sum[at + token];
        delta[i] = call.delta[at + token];
        start[i] = starts == nullptr || token >= call.tokens ? 0 : starts[token];
      }
    }
  };

  /// Zero where a query does not see the key: outside [start, query] of its own, past the end of the prefix.
  template <int Count>
  static __device__ __forceinline__ void hide(float (&weights)[Count], const Rows& rows, int first_key,
                                              bool own, int prefix) {
    const int first = first_key + accumulator_column();
    int begin[2], end[2];
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      begin[lower] = (own ? rows.start[lower] : 0) - first;
      end[lower] = (own ? rows.query + 8 * lower + 1 : prefix) - first;
    }
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      const int key = i / 4 * 8 + i % 2, lower = i / 2 % 2;
      weights[i] = (key >= begin[lower]) & (key < end[lower]) ? weights[i] : 0.0F;
    }
  }

  /// A warpgroup that multiplies: 64 of the block's queries.
  struct Worker {
    Shared& shared;
    const BackwardCall& call;
    int number;
    RingPlace<stages> place;
    int queries_parity = 0;

    __device__ __forceinline__ void run() {
      begin_turns(number);
      each_work(call, [&](const Work& work) { finish(work); });
    }
    __device__ __forceinline__ void finish(const Work& work) {
      const Rows rows(call, work, number);
      float d_q[D / 2];
      forget(d_q);
      shared.fetched_queries.wait(queries_parity);
      queries_parity ^= 1;
      const int count = work.tiles();
      for (int tile = 0; tile < count; ++tile, place.advance()) {
        shared.fetched[place.stage].wait(place.parity);
        // on the diagonal the first worker sees only half of the keys; the prefix comes in halves
        if (work.own(tile) && !(work.last(tile) && number == 0))
          step<keys>(work, tile, rows, d_q);
        else
          step<keys / 2>(work, tile, rows, d_q);
        release(shared.free[place.stage]);
      }
      wait_products<0>(d_q);
      store(work, d_q);
    }

    template <int Keys>
    __device__ __forceinline__ void step(const Work& work, int tile, const Rows& rows, float (&d_q)[D / 2]) {
      const Stage& stage = shared.stage[place.stage];
      const bool own = work.own(tile);
      const int first_key = work.first_key(tile);
      const float scale_log2 = call.scale * log2_e;
      float scores[Keys / 2], d_scores[Keys / 2];
      std::uint32_t d_s[Keys / 16][4];
      take_turn(number);
      fence_registers();
      multiply_rows(scores, shared.q, number, stage.k);
      multiply_rows(d_scores, shared.d_out, number, stage.v);
      pass_turn(number);
      wait_products<1>(scores);
#pragma unroll
      for (int i = 0; i < Keys / 2; ++i)
        scores[i] = power_of_two(fmaf(scores[i], scale_log2, -rows.log2_sum[i / 2 % 2]));
      if (own ? work.last(tile) || first_key < rows.latest_start : first_key + Keys > call.prefix)
        hide(scores, rows, first_key, own, call.prefix);
      wait_products<0>(d_scores);
      if (work.last(tile)) release(shared.free_queries);
#pragma unroll
      for (int i = 0; i < Keys / 2; ++i) d_scores[i] = scores[i] * (d_scores[i] - rows.delta[i / 2 % 2]);
      as_left_operands(d_scores, d_s);
      pin(d_q);
      fence_registers();
      add_product(d_q, d_s, stage.k, tile > 0);
      wait_products<0>();
    }

    __device__ __forceinline__ void store(const Work& work, float (&d_q)[D / 2]) const {
      const int token = work.first_query + number * panel_rows + accumulator_row();
      const Index width = Index{call.heads + 2 * call.kv_heads} * D;
      BFloat16* row =
          call.d_qkv + (static_cast<Index>(work.stream) * call.tokens + token) * width + work.head * D;
      turn_back<D>(d_q, call, work.stream, token);
#pragma unroll
      for (int lower = 0; lower < 2; ++lower)
        store_row<D>(d_q, lower, call.scale, token + 8 * lower < call.tokens, row + 8 * lower * width);
    }
  };
};

template <int D>
__global__ void __launch_bounds__(backward_threads, 1)
    query_gradients_kernel(const __grid_constant__ BackwardMaps maps, const BackwardCall call) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL  // other targets of one build get an empty kernel, which no call reaches
  using Kernel = QueryGradients<D>;
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<typename Kernel::Shared*>(
      (reinterpret_cast<std::uintptr_t>(memory) + 1023) & ~std::uintptr_t{1023});
  if (threadIdx.x == 0) {
    shared.fetched_queries.init(1);
    shared.free_queries.init(worker_warps);
    for (int s = 0; s < Kernel::stages; ++s) {
      shared.fetched[s].init(1);
      shared.free[s].init(worker_warps);
    }
    Barrier::fence_initialised();
  }
  __syncthreads();
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    drop_registers<fetcher_registers>();
    if (threadIdx.x == 0) typename Kernel::Fetcher{shared, maps, call, {}}.run();
  } else {
    raise_registers<worker_registers>();
    typename Kernel::Worker{shared, call, warpgroup - 1, {}}.run();
  }
#endif
}

}  // namespace parscale::cuda::hopper
