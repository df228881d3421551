/// Gradients of keys and values on Hopper: one block takes 128 keys of one key/value head past all queries
/// that see them, heads of the group one after the other, and keeps both gradients in registers. Scores stand
/// transposed, [keys, queries], so that weights and their gradients are left operands in registers: nothing
/// but operands passes through shared memory.
#pragma once

#include "attention_backward_hopper_tiles.cuh"

namespace parscale::cuda::hopper {

template <int D>
struct KeyGradients {
  static constexpr int keys = 128, queries = 64, steps = queries / 16;
  static constexpr int stages = D == 128 ? 4 : 6;

  struct Stage {
    Tile<D, 1> q, d_out;
  };
  struct Statistics {
    float log2_sum[queries], delta[queries];
  };
  struct Shared {
    Tile<D, 2> k, v;
    Stage stage[stages];
    alignas(16) Statistics statistics[stages];
    Barrier fetched_keys, fetched[stages], free[stages];
  };
  /// Works of the prefix a (stream, key/value head).
  static __host__ __device__ int prefix_works(const BackwardCall& call) {
    return call.d_prefix_k == nullptr ? 0 : (call.prefix + panel_rows - 1) / panel_rows;
  }
  static int blocks(const BackwardCall& call) {
    return (prefix_works(call) + (call.tokens + keys - 1) / keys) * call.streams * call.kv_heads;
  }
  static constexpr int stage_bytes = 2 * Tile<D, 1>::bytes + static_cast<int>(sizeof(Statistics));

  /// One block's work. The prefix comes in tiles of 64 keys whose queries the two workers share, tile by
  /// tile.
  struct Work {
    int stream, kv_head, first_key;
    bool own;
    int first_query_tile, query_tiles;

    __device__ Work(const BackwardCall& call, int number) {
      const int heads = call.streams * call.kv_heads, prefix_tiles = prefix_works(call);
      const int tile = number / heads;  // the longest first
      stream = number % heads / call.kv_heads;
      kv_head = number % heads % call.kv_heads;
      own = tile >= prefix_tiles;
      first_key = own ? (tile - prefix_tiles) * keys : tile * panel_rows;
      first_query_tile = own ? first_key / queries : 0;
      query_tiles = (call.tokens + queries - 1) / queries - first_query_tile;
      if (own) query_tiles = seeing(call);
    }
    /// Tiles of queries whose documents begin before this work's keys end. Whole warps call it.
    __device__ int seeing(const BackwardCall& call) const {
      const std::int32_t* starts = call.starts_of(stream);
      if (starts == nullptr) return query_tiles;
      const int lane = static_cast<int>(threadIdx.x) % warp_size;
      for (int from = 0; from < query_tiles; from += warp_size) {
        const int tile = from + lane;
        const bool sees =
            tile < query_tiles && starts[(first_query_tile + tile) * queries] < first_key + keys;
        const int count = __popc(__ballot_sync(0xffffffffU, sees));
        if (count < warp_size) return from + count;
      }
      return query_tiles;
    }
    /// Calls f(head, first query) for the steps: one tile of queries after the other, head by head.
    template <class F>
    __device__ __forceinline__ void each_step(const BackwardCall& call, F f) const {
      for (int head = kv_head * call.group; head < (kv_head + 1) * call.group; ++head)
        for (int tile = first_query_tile; tile < first_query_tile + query_tiles; ++tile)
          f(head, tile * queries);
    }
    /// Whether a worker's keys are seen by these queries; the prefix's are one worker's or the other's.
    __device__ bool takes(int worker, int first_query) const {
      if (!own) return first_query / queries % workers == worker;
      return first_query >= first_key + worker * panel_rows;
    }
  };

  static __device__ void fetch(Shared& shared, const BackwardMaps& maps, const BackwardCall& call,
                               const Work& work) {
    shared.fetched_keys.arrive_and_expect(2 * Tile<D, 2>::bytes);
    if (work.own) {
      const int k_column = (call.heads + work.kv_head) * D, v_column = k_column + call.kv_heads * D;
      shared.k.load(maps.qkv, shared.fetched_keys, k_column, work.first_key, work.stream);
      shared.v.load(maps.qkv, shared.fetched_keys, v_column, work.first_key, work.stream);
    } else {
      const int head = call.prefix_head(work.stream, work.kv_head);
      shared.k.load(maps.prefix_k, shared.fetched_keys, 0, work.first_key, head);
      shared.v.load(maps.prefix_v, shared.fetched_keys, 0, work.first_key, head);
    }
    RingPlace<stages> place;
    work.each_step(call, [&](int head, int query) {
      const Index statistics = call.statistics(work.stream, head) + query;
      const int d_out_column = call.d_out_column(work.stream, head, D);
      Barrier& fetched = shared.fetched[place.stage];
      shared.free[place.stage].wait(place.parity ^ 1);
      fetched.arrive_and_expect(stage_bytes);
      shared.stage[place.stage].q.load(maps.qkv, fetched, head * D, query, work.stream);
      shared.stage[place.stage].d_out.load(maps.d_out, fetched, d_out_column, query, work.stream);
      load_bytes(shared.statistics[place.stage].log2_sum, call.log2_sum + statistics, queries * 4, fetched);
      load_bytes(shared.statistics[place.stage].delta, call.delta + statistics, queries * 4, fetched);
      place.advance();
    });
  }

  /// Transposed scores become weights: rows are keys, columns queries.
  static __device__ __forceinline__ void weigh(float (&scores)[queries / 2], float scale_log2,
                                               const float* log2_sum) {
#pragma unroll
    for (int j = 0; j < queries / 8; ++j) {
      const float2 sum = *reinterpret_cast<const float2*>(log2_sum + 8 * j + accumulator_column());
#pragma unroll
      for (int i = 0; i < 4; ++i)
        scores[4 * j + i] = power_of_two(fmaf(scores[4 * j + i], scale_log2, i % 2 == 0 ? -sum.x : -sum.y));
    }
  }
  /// Zero where the query does not see the key: later keys, and those before its document.
  static __device__ __forceinline__ void hide(float (&weights)[queries / 2], int first_key, int first_query,
                                              const std::int32_t* starts, int tokens) {
    const int key = first_key + accumulator_row(), first = first_query + accumulator_column();
#pragma unroll
    for (int i = 0; i < queries / 2; ++i) {
      const int query = first + i / 4 * 8 + i % 2, row = key + i / 2 % 2 * 8;
      const int start = starts == nullptr ? 0 : starts[min(query, tokens - 1)];
      weights[i] = (row >= start) & (row <= query) ? weights[i] : 0.0F;
    }
  }
  /// Gradients of weights become those of scores (over the scale).
  static __device__ __forceinline__ void differentiate(const float (&weights)[queries / 2],
                                                       float (&d_scores)[queries / 2], const float* deltas) {
#pragma unroll
    for (int j = 0; j < queries / 8; ++j) {
      const float2 delta = *reinterpret_cast<const float2*>(deltas + 8 * j + accumulator_column());
#pragma unroll
      for (int i = 0; i < 4; ++i)
        d_scores[4 * j + i] = weights[4 * j + i] * (d_scores[4 * j + i] - (i % 2 == 0 ? delta.x : delta.y));
    }
  }

  /// A warpgroup that multiplies: 64 of the block's keys.
  struct Worker {
    Shared& shared;
    const BackwardCall& call;
    const Work& work;
    int number;
    float d_k[D / 2], d_v[D / 2];  ///< [64,D]

    __device__ __forceinline__ void run() {
#pragma unroll
      for (int i = 0; i < D / 2; ++i) d_k[i] = d_v[i] = 0;
      shared.fetched_keys.wait(0);
      begin_turns(number);
      RingPlace<stages> place;
      work.each_step(call, [&](int, int first_query) {
        shared.fetched[place.stage].wait(place.parity);
        take_turn(number);
        if (work.takes(number, first_query))
          step(shared.stage[place.stage], shared.statistics[place.stage], first_query);
        else
          pass_turn(number);
        release(shared.free[place.stage]);
        place.advance();
      });
      wait_products<0>(d_k, d_v);
      work.own ? store_own() : store_prefix();
    }

    /// The worker's keys in the block's tiles.
    __device__ int half() const { return work.own ? number : 0; }
    __device__ int first_key() const { return work.first_key + half() * panel_rows; }

    __device__ __forceinline__ void step(const Stage& stage, const Statistics& statistics, int first_query) {
      float scores[queries / 2], d_scores[queries / 2];
      std::uint32_t p[steps][4], d_s[steps][4];
      fence_registers();
      multiply_rows(scores, shared.k, half(), stage.q);
      multiply_rows(d_scores, shared.v, half(), stage.d_out);
      pass_turn(number);
      wait_products<1>(scores);
      weigh(scores, call.scale * log2_e, statistics.log2_sum);
      const std::int32_t* starts = call.starts_of(work.stream);
      const int last_query = min(first_query + queries, call.tokens) - 1;
      if (work.own && (first_query == first_key() || (starts != nullptr && starts[last_query] > first_key())))
        hide(scores, first_key(), first_query, starts, call.tokens);
      as_left_operands(scores, p);
      pin(d_v);
      fence_registers();
      add_product(d_v, p, stage.d_out);
      wait_products<1>(d_scores);
      differentiate(scores, d_scores, statistics.delta);
      as_left_operands(d_scores, d_s);
      pin(d_k);
      fence_registers();
      add_product(d_k, d_s, stage.q);
      wait_products<0>();
    }

    /// Own keys: rounded, to memory.
    __device__ __forceinline__ void store_own() {
      const int token = first_key() + accumulator_row(), width = (call.heads + 2 * call.kv_heads) * D;
      BFloat16* k = call.d_qkv + (static_cast<Index>(work.stream) * call.tokens + token) * width +
                    (call.heads + work.kv_head) * D;
      turn_back<D>(d_k, call, work.stream, token);
#pragma unroll
      for (int lower = 0; lower < 2; ++lower) {
        BFloat16* row = k + static_cast<Index>(8 * lower) * width;
        const bool exists = token + 8 * lower < call.tokens;
        store_row<D>(d_k, lower, call.scale, exists, row);
        store_row<D>(d_v, lower, 1.0F, exists, row + call.kv_heads * D);
      }
    }
    /// The prefix: float32, a part for each stream and worker; they are summed in order afterwards.
    __device__ __forceinline__ void store_prefix() const {
      const Index part = (static_cast<Index>(work.stream) * workers + number) * call.kv_heads + work.kv_head;
#pragma unroll
      for (int j = 0; j < D / 8; ++j)
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
          const int row = work.first_key + accumulator_row() + lower * 8, i = 4 * j + 2 * lower;
          if (row >= call.prefix) continue;
          const Index at = (part * call.prefix + row) * D + 8 * j + accumulator_column();
          *reinterpret_cast<float2*>(call.d_prefix_k + at) = {d_k[i] * call.scale, d_k[i + 1] * call.scale};
          *reinterpret_cast<float2*>(call.d_prefix_v + at) = {d_v[i], d_v[i + 1]};
        }
    }
  };
};

template <int D>
__global__ void __launch_bounds__(backward_threads, 1)
    key_gradients_kernel(const __grid_constant__ BackwardMaps maps, const BackwardCall call) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL  // other targets of one build get an empty kernel, which no call reaches
  using Kernel = KeyGradients<D>;
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<typename Kernel::Shared*>(
      (reinterpret_cast<std::uintptr_t>(memory) + 1023) & ~std::uintptr_t{1023});
  if (threadIdx.x == 0) {
    shared.fetched_keys.init(1);
    for (int s = 0; s < Kernel::stages; ++s) {
      shared.fetched[s].init(1);
      shared.free[s].init(worker_warps);
    }
    Barrier::fence_initialised();
  }
  __syncthreads();
  const typename Kernel::Work work(call, static_cast<int>(blockIdx.x));
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    drop_registers<fetcher_registers>();
    if (threadIdx.x == 0) Kernel::fetch(shared, maps, call, work);
  } else {
    raise_registers<worker_registers>();
    typename Kernel::Worker worker{shared, call, work, warpgroup - 1};
    worker.run();
  }
#endif
}

}  // namespace parscale::cuda::hopper
