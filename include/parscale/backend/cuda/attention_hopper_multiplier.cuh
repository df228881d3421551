/// What a warpgroup of Hopper's attention forward does with the tiles that it is brought: scores, softmax,
/// sums.
#pragma once

#include "attention_hopper_tiles.cuh"
#include "mma.cuh"

namespace parscale::cuda::hopper {

/// What computes x stays before this line: the assembler would let waiting for products, which x does not
/// need, come first. x is never -1.
__device__ inline void stay_before(float x) {
  asm volatile("{\n.reg .pred p;\nsetp.eq.f32 p, %0, 0fBF800000;\n@p nanosleep.u32 0;\n}" ::"f"(x)
               : "memory");
}
/// Over the four threads that hold a row.
__device__ inline float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffU, x, 2));
}
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffU, x, 1);
  return x + __shfl_xor_sync(0xffffffffU, x, 2);
}

/// Word i of thread t of a row's four becomes word t of thread i.
__device__ inline void transpose_words(std::uint32_t (&w)[4]) {
  const auto exchange = [](bool upper, int distance, std::uint32_t& low, std::uint32_t& high) {
    const std::uint32_t other = __shfl_xor_sync(0xffffffffU, upper ? low : high, distance);
    (upper ? low : high) = other;
  };
  const bool odd = threadIdx.x % 2 != 0, upper = threadIdx.x % 4 >= 2;
  exchange(odd, 1, w[0], w[1]);
  exchange(odd, 1, w[2], w[3]);
  exchange(upper, 2, w[0], w[2]);
  exchange(upper, 2, w[1], w[3]);
}

/// What a thread knows of its two rows, i and i + 8 of the warpgroup's 64.
struct AttendRows {
  int query;               ///< of the first; the second is 8 further
  Index row;               ///< of out and log_sum, of the first
  int head, source;        ///< its columns of out
  int start[2];            ///< the first key that they see
  float top[2], total[2];  ///< softmax: the greatest score so far, this thread's part of the sum
};

/// The columns [from, to) of a tile of scores that each row sees.
struct AttendSeen {
  int from[2], to[2];
  bool wholly;  ///< all rows of the warpgroup see all columns
};

/// A thread of a warpgroup that multiplies. All tiles of all its works are one sequence of steps: while a
/// tile's scores are computed and exponentiated, the values of the tile before are summed, also when that
/// tile was the last of another work.
template <int D>
class AttendMultiplier {
  using Tiles = AttendTiles<D>;
  using Place = RingPlace<Tiles::stages>;
  static constexpr int keys = Tiles::keys, half = keys / 2;
  static_assert(Tiles::prefix_keys == half && Tiles::queries == keys);

 public:
  __device__ AttendMultiplier(const AttendPlan& plan, AttendShared<D>& shared, int warpgroup)
      : plan_(plan), shared_(shared), warpgroup_(warpgroup) {
    if (warpgroup == 0) arrive_threads(turn(0), 2 * warpgroup_size);  // the first turn is its own
  }

  __device__ void run(const AttendWork<D>& work) {
    const AttendRows finished = rows_;
    begin(work);
    // On the diagonal the first warpgroup sees only half of the keys.
    const AttendSeen seen = own_seen(work, work.first);
    warpgroup_ == 0 ? first_step<half>(seen) : first_step<keys>(seen);
    if (begun_) store(finished);
    begun_ = true;
    summed_ = false;
    int tile = 1;
    if (!wide_before_ && tile < work.own()) next_step<half, keys>(own_seen(work, work.first - tile++));
    for (; tile < work.own(); ++tile) next_step<keys, keys>(own_seen(work, work.first - tile));
    for (int key = 0; key < plan_.prefix; key += half)
      wide_before_ ? next_step<keys, half>(prefix_seen(key)) : next_step<half, half>(prefix_seen(key));
    free(shared_.queries_free, queries_);
  }

  /// The values of the very last tile.
  __device__ void finish() {
    wide_before_ ? start_values<keys>() : start_values<half>();
    wait_products<0>(out_);
    store(rows_);
  }

 private:
  __device__ void begin(const AttendWork<D>& work) {
    const int thread = static_cast<int>(threadIdx.x) % warpgroup_size;
    rows_.query = work.query + warpgroup_ * Tiles::rows + thread / warp_size * 16 + thread % warp_size / 4;
    rows_.row = static_cast<Index>(work.stream) * plan_.tokens + rows_.query;
    rows_.head = work.head;
    rows_.source = plan_.sources > 1 ? work.stream / plan_.sequences : 0;
    for (int h = 0; h < 2; ++h) {
      rows_.start[h] = work.start(plan_, rows_.query + 8 * h);
      rows_.top[h] = -INFINITY;
      rows_.total[h] = 0;
    }
    last_start_ = work.start(plan_, work.query + Tiles::queries - 1);
    shared_.queries_full[queries_.stage].wait(queries_.parity);
  }

  __device__ AttendSeen own_seen(const AttendWork<D>& work, int tile) const {
    const int key = tile * keys;
    return {{rows_.start[0] - key, rows_.start[1] - key},
            {rows_.query - key + 1, rows_.query - key + 9},
            tile < work.first && key >= last_start_};
  }
  __device__ AttendSeen prefix_seen(int key) const {
    const int left = plan_.prefix - key;
    return {{0, 0}, {left, left}, left >= half};
  }

  template <int Now>
  __device__ void first_step(const AttendSeen& seen) {
    if (!begun_)
      step<0, Now>(seen);
    else
      wide_before_ ? step<keys, Now>(seen) : step<half, Now>(seen);
    wide_before_ = Now == keys;
  }
  template <int Before, int Now>
  __device__ void next_step(const AttendSeen& seen) {
    step<Before, Now>(seen);
    wide_before_ = Now == keys;
    summed_ = true;
  }

  /// Scores and softmax of a tile of `Now` keys, under which the values of the tile before are summed.
  template <int Before, int Now>
  __device__ void step(const AttendSeen& seen) {
    float scores[Now / 2];
    shared_.keys_full[keys_.stage].wait(keys_.parity);
    sync_threads(turn(warpgroup_), 2 * warpgroup_size);
    start_scores<Now>(scores);
    if constexpr (Before > 0) start_values<Before>();
    arrive_threads(turn(1 - warpgroup_), 2 * warpgroup_size);
    wait_products<(Before > 0 ? 1 : 0)>(scores);
    free(shared_.keys_free, keys_);
    if (!seen.wholly) hide<Now>(scores, seen);
    exponentiate<Now>(scores);
    stay_before(rows_.total[0] + rows_.total[1]);
    wait_products<0>(out_, scores);
    if constexpr (Before > 0) free(shared_.values_free, values_);
#pragma unroll
    for (int i = 0; i < Now / 16; ++i) as_left_operand(scores, i, weights_[i]);
  }

  template <int Now>
  __device__ void start_scores(float (&scores)[Now / 2]) {
    const std::uint64_t q = operand(shared_.queries[queries_.stage][warpgroup_]);
    const std::uint64_t k = operand(shared_.keys[keys_.stage]);
    fence_registers();
#pragma unroll
    for (int i = 0; i < D / 16; ++i)
      multiply(scores, further(q, k_step_bytes<Major::k>(i, Tiles::rows)),
               further(k, k_step_bytes<Major::k>(i, keys)), i > 0);
    commit_products();
  }

  template <int Before>
  __device__ void start_values() {
#pragma unroll
    for (int i = 0; i < D / 2; ++i) out_[i] *= shrink_[i / 2 % 2];
    shared_.values_full[values_.stage].wait(values_.parity);
    const std::uint64_t v = operand(shared_.values[values_.stage], keys * row_bytes);
    fence_registers();
#pragma unroll
    for (int i = 0; i < Before / 16; ++i)
      multiply<Major::mn>(out_, weights_[i], further(v, k_step_bytes<Major::mn>(i, keys)), summed_ || i > 0);
    commit_products();
  }

  template <int Now>
  __device__ static void hide(float (&scores)[Now / 2], const AttendSeen& seen) {
    const int column = static_cast<int>(threadIdx.x) % 4 * 2;
    const int from[2] = {seen.from[0] - column, seen.from[1] - column};
    const int to[2] = {seen.to[0] - column, seen.to[1] - column};
#pragma unroll
    for (int i = 0; i < Now / 2; ++i) {
      const int c = i / 4 * 8 + i % 2, h = i / 2 % 2;
      if (c < from[h] || c >= to[h]) scores[i] = -INFINITY;
    }
  }

  /// scores = e^(score - top) with the new top; what was summed before must be multiplied by shrink_.
  template <int Now>
  __device__ void exponentiate(float (&scores)[Now / 2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float top = rows_.top[h];
#pragma unroll
      for (int i = 2 * h; i < Now / 2; i += 4) top = fmaxf(top, fmaxf(scores[i], scores[i + 1]));
      top = row_max(top);
      shrink_[h] = power_of_two((rows_.top[h] - top) * plan_.scale);
      rows_.top[h] = top;
      const float scaled = top * plan_.scale;
      float sums[2] = {rows_.total[h] * shrink_[h], 0};
#pragma unroll
      for (int i = 2 * h; i < Now / 2; i += 4)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          scores[i + c] = power_of_two(scores[i + c] * plan_.scale - scaled);
          sums[c] += scores[i + c];
        }
      rows_.total[h] = sums[0] + sums[1];
    }
  }

  __device__ void store(const AttendRows& rows) {
    const int lane = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float total = row_sum(rows.total[h]), share = 1 / total;
      const Index row = rows.row + 8 * h;
      const bool exists = rows.query + 8 * h < plan_.tokens;
      if (exists && lane == 0 && plan_.log_sum != nullptr)
        plan_.log_sum[row * plan_.heads + rows.head] =
            (rows.top[h] * plan_.scale + log2f(total)) * 0.693147180559945F;
      __nv_bfloat16* out =
          plan_.out + ((row * plan_.sources + rows.source) * plan_.heads + rows.head) * D + lane * 8;
#pragma unroll
      for (int c = 0; c < D / 32; ++c) {
        std::uint32_t words[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int i = 16 * c + 4 * j + 2 * h;
          words[j] = packed(out_[i] * share, out_[i + 1] * share);
        }
        transpose_words(words);
        if (exists)
          *reinterpret_cast<uint4*>(out + c * 32) = make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }

  __device__ void free(Barrier (&barriers)[Tiles::stages], Place& place) {
    if (threadIdx.x % warp_size == 0) barriers[place.stage].arrive();
    place.advance();
  }
  /// The barrier on which a warpgroup waits for its turn.
  __device__ static int turn(int warpgroup) { return 1 + warpgroup; }

  const AttendPlan& plan_;
  AttendShared<D>& shared_;
  const int warpgroup_;
  Place queries_, keys_, values_;
  bool begun_ = false;        ///< there is a tile before
  bool wide_before_ = false;  ///< it had `keys` keys, not half of them
  bool summed_ = false;       ///< out_ holds values of this work
  AttendRows rows_{};
  float shrink_[2];
  int last_start_ = 0;  ///< the greatest `start` of the tile of queries
  float out_[D / 2];
  std::uint32_t weights_[keys / 16][4];
};

}  // namespace parscale::cuda::hopper
