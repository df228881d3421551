/// What both kernels of attention's backward on Hopper share: sizes, tensor maps, panels in shared memory,
/// and the softmax's weights on accumulators.
///
/// With s = q k^T, p = softmax(scale s) and delta = sum over features of d_out * out, the gradients are
///   d_v = p^T d_out,  d_s = p * (d_out v^T - delta),  d_q = scale d_s k,  d_k = scale d_s^T q.
/// p comes back as 2^(scale log2(e) s - log2_sum), so one multiplication and one exponential make it.
#pragma once

#include "attention_places.cuh"
#include "vectors.cuh"
#include "wgmma.cuh"

namespace parscale::cuda::hopper {

/// Sizes, and what is small enough to be read without the copy engine. A stream is a sequence of one replica.
struct BackwardCall {
  int tokens, padded;  ///< S, and S rounded up to whole tiles of queries
  int streams, sequences, heads, kv_heads, group;
  int sources;  ///< blocks of A*D columns in d_out: P when expanded, else 1
  int prefix;   ///< T
  float scale;
  const std::int32_t* starts;      ///< [B,S] or null
  const float *log2_sum, *delta;   ///< [streams,A,padded]; past the last token infinity and 0
  const float2* turns;             ///< [S,D/2] cosines and sines that turned q and k, or null: none did
  BFloat16* d_qkv;                 ///< [streams,S,(A+2G)*D]
  float *d_prefix_k, *d_prefix_v;  ///< [streams,2,G,T,D], or null: not wanted

  __device__ const std::int32_t* starts_of(int stream) const {
    return starts == nullptr ? nullptr : starts + static_cast<Index>(stream % sequences) * tokens;
  }
  __device__ Index statistics(int stream, int head) const {
    return (static_cast<Index>(stream) * heads + head) * padded;
  }
  /// The head's column in d_out: what came from the stream's own values.
  __device__ int d_out_column(int stream, int head, int dim) const {
    return ((sources > 1 ? stream / sequences : 0) * heads + head) * dim;
  }
  /// The prefix's place in maps of [P*G,T,D].
  __device__ int prefix_head(int stream, int kv_head) const {
    return stream / sequences * kv_heads + kv_head;
  }
};

/// Operands as the copy engine sees them: [streams,S,columns] or [P*G,T,D], in boxes of one panel.
struct BackwardMaps {
  CUtensorMap qkv, d_out, prefix_k, prefix_v;
};

/// The warpgroups of a block: one that fetches and two that multiply.
inline constexpr int workers = 2, backward_threads = (1 + workers) * warpgroup_size;
inline constexpr int worker_warps = workers * warpgroup_size / warp_size;
inline constexpr int fetcher_registers = 24, worker_registers = 240;

inline constexpr int panel_rows = 64;

/// 64 rows of 64 bfloat16, swizzled.
struct alignas(1024) Panel {
  unsigned char bytes[panel_rows * row_bytes];
};

/// A tile of Halves * 64 rows and D columns; the halves of a panel of columns follow each other.
template <int D, int Halves>
struct Tile {
  static constexpr int rows = Halves * panel_rows, panels = D / panel_columns;
  static constexpr int panel_bytes = rows * row_bytes;
  static constexpr int bytes = panels * panel_bytes;
  Panel panel[panels][Halves];

  /// One thread fetches rows [row, row + rows) of plane `plane`, D columns from `column`.
  __device__ void load(const CUtensorMap& map, Barrier& barrier, int column, int row, int plane) {
    for (int p = 0; p < panels; ++p)
      for (int h = 0; h < Halves; ++h)
        load_box(&panel[p][h], map, barrier, column + p * panel_columns, row + h * panel_rows, plane);
  }
  /// The first half only.
  __device__ void load_half(const CUtensorMap& map, Barrier& barrier, int column, int row, int plane) {
    for (int p = 0; p < panels; ++p)
      load_box(&panel[p][0], map, barrier, column + p * panel_columns, row, plane);
  }
};

/// These registers hold nothing: the compiler need not carry what they held before into a product that
/// overwrites them.
template <int Count>
__device__ __forceinline__ void forget(float (&registers)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "=f"(registers[i]));
}

/// out [64,N] = half `half` of a [rows,D] times the transpose of b's first N rows.
template <int D, int Halves, int BHalves, int Count>
__device__ __forceinline__ void multiply_rows(float (&out)[Count], const Tile<D, Halves>& a, int half,
                                              const Tile<D, BHalves>& b) {
  const std::uint64_t left = operand(&a.panel[0][half]), right = operand(&b);
  forget(out);
#pragma unroll
  for (int step = 0; step < D / 16; ++step)
    multiply(out, further(left, k_step_bytes<Major::k>(step, Tile<D, Halves>::rows)),
             further(right, k_step_bytes<Major::k>(step, Tile<D, BHalves>::rows)), step > 0);
  commit_products();
}

/// out [64,D] = a [64,K] times b's first K rows + (accumulate ? out : 0), with a as pairs in registers.
template <int D, int Halves, int Steps, int Count>
__device__ __forceinline__ void add_product(float (&out)[Count], const std::uint32_t (&a)[Steps][4],
                                            const Tile<D, Halves>& b, bool accumulate = true) {
  static_assert(Steps * 16 <= Tile<D, Halves>::rows);
  const std::uint64_t right = operand(&b, Tile<D, Halves>::panel_bytes);
#pragma unroll
  for (int step = 0; step < Steps; ++step)
    multiply<Major::mn>(out, a[step], further(right, k_step_bytes<Major::mn>(step, Tile<D, Halves>::rows)),
                        accumulate || step > 0);
  commit_products();
}

template <int Count, int Steps>
__device__ __forceinline__ void as_left_operands(const float (&d)[Count], std::uint32_t (&a)[Steps][4]) {
  static_assert(Steps * 8 == Count);
#pragma unroll
  for (int step = 0; step < Steps; ++step) as_left_operand(d, step, a[step]);
}

/// The row of its warpgroup's 64 that a thread's accumulators begin with, and the first of its columns.
__device__ inline int accumulator_row() {
  const int thread = static_cast<int>(threadIdx.x) % warpgroup_size;
  return thread / 32 * 16 + thread % 32 / 4;
}
__device__ inline int accumulator_column() { return static_cast<int>(threadIdx.x) % 4 * 2; }

/// Pair i of lane t of a quad becomes pair t of lane i.
__device__ __forceinline__ void trade_pairs(std::uint32_t (&pairs)[4]) {
  const auto exchange = [](bool upper, int distance, std::uint32_t& low, std::uint32_t& high) {
    const std::uint32_t other = __shfl_xor_sync(0xffffffffU, upper ? low : high, distance);
    low = upper ? other : low;
    high = upper ? high : other;
  };
  const bool odd = threadIdx.x % 2 != 0, upper = threadIdx.x % 4 >= 2;
  exchange(odd, 1, pairs[0], pairs[1]);
  exchange(odd, 1, pairs[2], pairs[3]);
  exchange(upper, 2, pairs[0], pairs[2]);
  exchange(upper, 2, pairs[1], pairs[3]);
}
/// Writes one of the thread's two rows of an accumulator [64,D] to memory, as bfloat16, if there is such a
/// row. Each quad of lanes trades its pairs, so that a lane writes eight neighbours at once. The whole warp
/// calls it.
template <int D>
__device__ __forceinline__ void store_row(const float (&d)[D / 2], int lower, float factor, bool exists,
                                          BFloat16* row) {
#pragma unroll
  for (int j = 0; j < D / 8; j += 4) {
    std::uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = 4 * (j + i) + 2 * lower;
      pairs[i] = packed(d[at] * factor, d[at + 1] * factor);
    }
    trade_pairs(pairs);
    if (exists)  // an assignment is compiled to four stores
      __stwb(reinterpret_cast<uint4*>(row + 8 * (j + static_cast<int>(threadIdx.x) % 4)),
             uint4{pairs[0], pairs[1], pairs[2], pairs[3]});
  }
}

/// Turns the gradient of a stream's rotated rows back: an accumulator [64,D] whose thread's rows are `token`
/// and the eighth after it. Both features of a pair are the same thread's.
template <int D>
__device__ __forceinline__ void turn_back(float (&d)[D / 2], const BackwardCall& call, int stream,
                                          int token) {
  if (call.turns == nullptr) return;
  const std::int32_t* starts = call.starts_of(stream);
#pragma unroll
  for (int lower = 0; lower < 2; ++lower) {
    const int row = min(token + 8 * lower, call.tokens - 1);
    const int position = row - (starts == nullptr ? 0 : starts[row]);
    const float2* turns = call.turns + static_cast<Index>(position) * (D / 2) + accumulator_column();
#pragma unroll
    for (int j = 0; j < D / 16; ++j) {
      const float4 pair = *reinterpret_cast<const float4*>(turns + 8 * j);
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        float &low = d[4 * j + 2 * lower + k], &high = d[4 * (j + D / 16) + 2 * lower + k];
        const float cosine = k == 0 ? pair.x : pair.z, sine = k == 0 ? pair.y : pair.w, u = low, v = high;
        low = u * cosine + v * sine;
        high = v * cosine - u * sine;
      }
    }
  }
}

/// The workers ask for scores in turns, so that one multiplies while the other exponentiates: without it both
/// would do the same at the same time. The first turn is worker 0's.
__device__ inline int turn(int worker) { return 1 + workers + worker; }
__device__ inline void begin_turns(int worker) {
  if (worker == 1) arrive_threads(turn(0), workers * warpgroup_size);
}
__device__ inline void take_turn(int worker) { sync_threads(turn(worker), workers * warpgroup_size); }
__device__ inline void pass_turn(int worker) { arrive_threads(turn(1 - worker), workers * warpgroup_size); }

/// The calling warp is done with what a barrier guards.
__device__ inline void release(Barrier& free) {
  __syncwarp();
  if (threadIdx.x % warp_size == 0) free.arrive();
}

}  // namespace parscale::cuda::hopper
