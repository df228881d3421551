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

/// A thread of a warpgroup that multiplies; it holds rows i and i + 8 of the warpgroup's 64. While a tile's
/// scores are computed and exponentiated, the values of the tile before are summed; the warpgroups take turns
/// in asking for products, so that the softmax of one runs under the products of the other.
template <int D>
class AttendMultiplier {
  using Tiles = AttendTiles<D>;
  using Place = RingPlace<Tiles::stages>;
  static constexpr int keys = Tiles::keys, prefix_keys = Tiles::prefix_keys;

 public:
  __device__ AttendMultiplier(const AttendPlan& plan, AttendShared<D>& shared, int warpgroup)
      : plan_(plan), shared_(shared), warpgroup_(warpgroup) {
    if (warpgroup == 0) arrive_threads(turn(0), 2 * warpgroup_size);  // the first turn is its own
  }

  __device__ void run(const AttendWork<D>& work) {
    begin(work);
    first_step(work.first * keys);
    for (int tile = work.first - 1; tile >= work.last; --tile) step<keys, keys>(tile * keys);
    if (work.prefixes == 0) {
      finish_values<keys>();
    } else {
      step<keys, prefix_keys>(0);
      for (int tile = 1; tile < work.prefixes; ++tile) step<prefix_keys, prefix_keys>(tile * prefix_keys);
      finish_values<prefix_keys>();
    }
    free(shared_.queries_free, queries_);
    store(work);
  }

 private:
  __device__ void begin(const AttendWork<D>& work) {
    const int thread = static_cast<int>(threadIdx.x) % warpgroup_size;
    query_ = work.query + warpgroup_ * Tiles::rows + thread / warp_size * 16 + thread % warp_size / 4;
    for (int h = 0; h < 2; ++h) {
      start_[h] = work.start(plan_, query_ + 8 * h);
      top_[h] = -INFINITY;
      total_[h] = 0;
    }
    wholly_seen_from_ = work.start(plan_, work.query + Tiles::queries - 1);
    wholly_seen_to_ = work.query + warpgroup_ * Tiles::rows + 1;
    shared_.queries_full[queries_.stage].wait(queries_.parity);
  }

  /// The diagonal's tile: nothing to overlap with yet.
  __device__ void first_step(int first_key) {
    float scores[keys / 2], shrink[2];
    shared_.keys_full[keys_.stage].wait(keys_.parity);
    start_scores<keys>(scores);
    wait_products<0>(scores);
    free(shared_.keys_free, keys_);
    hide(scores, first_key);
    exponentiate<keys>(scores, shrink);
    keep_weights<keys>(scores);
    started_ = false;
  }

  /// Scores and softmax of a tile of `Now` keys, under which the values of the tile before are summed.
  template <int Before, int Now>
  __device__ void step(int first_key) {
    float scores[Now / 2], shrink[2];
    shared_.keys_full[keys_.stage].wait(keys_.parity);
    sync_threads(turn(warpgroup_), 2 * warpgroup_size);
    start_scores<Now>(scores);
    start_values<Before>();
    arrive_threads(turn((warpgroup_ + 1) % Tiles::warpgroups), 2 * warpgroup_size);
    wait_products<1>(scores);
    free(shared_.keys_free, keys_);
    if constexpr (Now == prefix_keys)
      hide_beyond_prefix(scores, first_key);
    else
      hide(scores, first_key);
    exponentiate<Now>(scores, shrink);
    stay_before(total_[0] + total_[1]);
    wait_products<0>(out_, scores);
    free(shared_.values_free, values_);
    keep_weights<Now>(scores);
#pragma unroll
    for (int i = 0; i < D / 2; ++i) out_[i] *= shrink[i / 2 % 2];
  }

  template <int Before>
  __device__ void finish_values() {
    start_values<Before>();
    wait_products<0>(out_);
    free(shared_.values_free, values_);
  }

  template <int Now>
  __device__ void start_scores(float (&scores)[Now / 2]) {
    const std::uint64_t q = operand(shared_.queries[queries_.stage][warpgroup_]);
    const std::uint64_t k = operand(shared_.keys[keys_.stage]);
    fence_registers();
#pragma unroll
    for (int i = 0; i < D / 16; ++i)
      multiply(scores, further(q, k_step_bytes<Major::k>(i, Tiles::rows)),
               further(k, k_step_bytes<Major::k>(i, Now)), i > 0);
    commit_products();
  }

  template <int Before>
  __device__ void start_values() {
    shared_.values_full[values_.stage].wait(values_.parity);
    const std::uint64_t v = operand(shared_.values[values_.stage], Before * row_bytes);
    fence_registers();
#pragma unroll
    for (int i = 0; i < Before / 16; ++i)
      multiply<Major::mn>(out_, weights_[i], further(v, k_step_bytes<Major::mn>(i, Before)),
                          started_ || i > 0);
    commit_products();
    started_ = true;
  }

  /// Scores of keys that a query must not see become -infinity.
  __device__ void hide(float (&scores)[keys / 2], int first_key) const {
    if (first_key + keys <= wholly_seen_to_ && first_key >= wholly_seen_from_) return;
    const int column = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int i = 0; i < keys / 2; ++i) {
      const int key = column + i / 4 * 8 + i % 2, h = i / 2 % 2;
      if (key > query_ + 8 * h || key < start_[h]) scores[i] = -INFINITY;
    }
  }
  __device__ void hide_beyond_prefix(float (&scores)[prefix_keys / 2], int first_key) const {
    if (first_key + prefix_keys <= plan_.prefix) return;
    const int column = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int i = 0; i < prefix_keys / 2; ++i)
      if (column + i / 4 * 8 + i % 2 >= plan_.prefix) scores[i] = -INFINITY;
  }

  /// scores = e^(score - top) with the new top; what was summed before must be multiplied by `shrink`.
  template <int Now>
  __device__ void exponentiate(float (&scores)[Now / 2], float (&shrink)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float top = top_[h];
#pragma unroll
      for (int i = 2 * h; i < Now / 2; i += 4) top = fmaxf(top, fmaxf(scores[i], scores[i + 1]));
      top = row_max(top);
      shrink[h] = power_of_two((top_[h] - top) * plan_.scale);
      top_[h] = top;
      const float scaled = top * plan_.scale;
      float sums[2] = {total_[h] * shrink[h], 0};
#pragma unroll
      for (int i = 2 * h; i < Now / 2; i += 4)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          scores[i + c] = power_of_two(scores[i + c] * plan_.scale - scaled);
          sums[c] += scores[i + c];
        }
      total_[h] = sums[0] + sums[1];
    }
  }

  template <int Now>
  __device__ void keep_weights(const float (&scores)[Now / 2]) {
#pragma unroll
    for (int i = 0; i < Now / 16; ++i) as_left_operand(scores, i, weights_[i]);
  }

  __device__ void store(const AttendWork<D>& work) {
    const int lane = static_cast<int>(threadIdx.x) % 4;
    const int source = plan_.sources > 1 ? work.stream / plan_.sequences : 0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float total = row_sum(total_[h]), share = 1 / total;
      const int token = query_ + 8 * h;
      const Index row = static_cast<Index>(work.stream) * plan_.tokens + token;
      const bool exists = token < plan_.tokens;
      if (exists && lane == 0 && plan_.log_sum != nullptr)
        plan_.log_sum[row * plan_.heads + work.head] =
            (top_[h] * plan_.scale + log2f(total)) * 0.693147180559945F;
      __nv_bfloat16* out =
          plan_.out + ((row * plan_.sources + source) * plan_.heads + work.head) * D + lane * 8;
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
  int query_, start_[2], wholly_seen_from_, wholly_seen_to_;
  bool started_ = false;  ///< out_ holds something
  float top_[2], total_[2], out_[D / 2];
  std::uint32_t weights_[keys / 16][4];
};

}  // namespace parscale::cuda::hopper
