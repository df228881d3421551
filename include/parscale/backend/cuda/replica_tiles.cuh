/// Eight rows side by side on the tensor cores: all replicas of one position (P = 8), of two (P = 4), ... For
/// one key/value head a warp holds their keys and values, and takes its query heads through them two at a
/// time, 16 rows at once. Products between different positions are computed in vain and hidden.
///
/// The order of features inside a product does not matter, so that each lane reads and writes 16 bytes where
/// they lie: no shared memory, no shuffle.
#pragma once

#include "attention_places.cuh"
#include "mma.cuh"

namespace parscale::cuda {

/// Eight rows of D features as a warp holds them: lane 4g + t has features 32j + 8t + 2i, + 1 of row g as
/// pair 4j + i.
template <int D>
struct EightRows {
  static constexpr int pairs = D / 8;
  unsigned pair[pairs];

  /// Zeros when null.
  __device__ static EightRows load(const BFloat16* row) {
    EightRows rows;
#pragma unroll
    for (int j = 0; j < pairs / 4; ++j) {
      const uint4 four = row != nullptr ? reinterpret_cast<const uint4*>(row)[4 * j + quarter()] : uint4{};
      rows.pair[4 * j] = four.x;
      rows.pair[4 * j + 1] = four.y;
      rows.pair[4 * j + 2] = four.z;
      rows.pair[4 * j + 3] = four.w;
    }
    return rows;
  }
  /// Nowhere when null.
  __device__ void store(BFloat16* row) const {
    if (row == nullptr) return;
#pragma unroll
    for (int j = 0; j < pairs / 4; ++j)
      reinterpret_cast<uint4*>(row)[4 * j + quarter()] = {pair[4 * j], pair[4 * j + 1], pair[4 * j + 2],
                                                          pair[4 * j + 3]};
  }
  __device__ EightRows transpose() const {
    EightRows turned;
#pragma unroll
    for (int x = 0; x < pairs; ++x) turned.pair[x] = transposed(pair[x]);
    return turned;
  }

 private:
  __device__ static int quarter() { return static_cast<int>(threadIdx.x) % 4; }
};

/// The rows of two heads, one above the other.
template <int D>
struct SixteenRows {
  EightRows<D> low, high;

  /// c[4] (rows g, g + 8; columns 2t, 2t + 1) = these rows times the eight rows of `keys`
  __device__ void products(float (&c)[4], const EightRows<D>& keys) const {
    c[0] = c[1] = c[2] = c[3] = 0;
#pragma unroll
    for (int x = 0; x < EightRows<D>::pairs; x += 2)
      multiply(c, {low.pair[x], high.pair[x], low.pair[x + 1], high.pair[x + 1]}, keys.pair[x],
               keys.pair[x + 1]);
  }
  __device__ void scale(float low_factor, float high_factor) {
#pragma unroll
    for (int x = 0; x < EightRows<D>::pairs; ++x) {
      low.pair[x] = pair_of(low_half(low.pair[x]) * low_factor, high_half(low.pair[x]) * low_factor);
      high.pair[x] = pair_of(low_half(high.pair[x]) * high_factor, high_half(high.pair[x]) * high_factor);
    }
  }
  /// These rows, plus weights [16,8] times eight rows given transposed.
  __device__ SixteenRows plus(const unsigned (&weights)[2], const EightRows<D>& turned) const {
    SixteenRows sum;
#pragma unroll
    for (int x = 0; x < EightRows<D>::pairs; ++x) {
      float c[4] = {low_half(low.pair[x]), high_half(low.pair[x]), low_half(high.pair[x]),
                    high_half(high.pair[x])};
      multiply(c, weights, turned.pair[x]);
      sum.low.pair[x] = pair_of(c[0], c[1]);
      sum.high.pair[x] = pair_of(c[2], c[3]);
    }
    return sum;
  }
};

/// Sums of weighted rows for eight keys: [D,8] as the tensor cores hold it.
template <int D>
struct EightSums {
  float sum[D / 16][4];

  __device__ static EightSums from(const EightRows<D>& rows) {
    EightSums sums;
#pragma unroll
    for (int x = 0; x < D / 16; ++x) {
      const unsigned low = transposed(rows.pair[2 * x]), high = transposed(rows.pair[2 * x + 1]);
      sums.sum[x][0] = low_half(low);
      sums.sum[x][1] = high_half(low);
      sums.sum[x][2] = low_half(high);
      sums.sum[x][3] = high_half(high);
    }
    return sums;
  }
  /// += rows^T weights; the weights [16,8] of sixteen rows are given transposed.
  __device__ void add(const SixteenRows<D>& rows, const unsigned (&turned_weights)[2]) {
#pragma unroll
    for (int x = 0; x < D / 16; ++x)
      multiply(sum[x],
               {transposed(rows.low.pair[2 * x]), transposed(rows.low.pair[2 * x + 1]),
                transposed(rows.high.pair[2 * x]), transposed(rows.high.pair[2 * x + 1])},
               turned_weights[0], turned_weights[1]);
  }
  __device__ EightRows<D> rows() const {
    EightRows<D> rows;
#pragma unroll
    for (int x = 0; x < D / 16; ++x) {
      rows.pair[2 * x] = transposed(pair_of(sum[x][0], sum[x][1]));
      rows.pair[2 * x + 1] = transposed(pair_of(sum[x][2], sum[x][3]));
    }
    return rows;
  }
};

/// Which rows a warp has: 8 / P positions with their replicas, the replica fastest, and one key/value head.
template <int P>
struct ReplicaTile {
  static_assert(8 % P == 0);
  static constexpr int warps = 4, threads = warps * warp_size;  ///< of a block

  int kv_head, own;  ///< own: this lane's row g
  Index position, row;
  bool there;

  __device__ explicit ReplicaTile(const HeadPlaces& at) : own(static_cast<int>(threadIdx.x) % warp_size / 4) {
    const Index task = static_cast<Index>(blockIdx.x) * warps + threadIdx.x / warp_size;
    kv_head = static_cast<int>(task % at.kv_heads);
    position = task / at.kv_heads * (8 / P) + own / P;
    there = position < at.positions;
    row = replica() * at.positions + position;
  }
  __host__ static unsigned blocks(const HeadPlaces& at) {
    return grid_size(tiles_of(tiles_of(at.positions, 8 / P) * at.kv_heads, warps));
  }

  __device__ int replica() const { return own % P; }
  __device__ static int column(int j) { return 2 * (static_cast<int>(threadIdx.x) % 4) + j; }
  /// Whether the row's column j (of two) is a key of its position, and whose.
  __device__ bool sees(int j) const { return column(j) / P == own / P; }
  __device__ static int source(int j) { return column(j) % P; }
  __device__ bool crosses(int j) const { return sees(j) && source(j) != replica(); }

  /// The rows of heads h and h + 1; the second is absent at the end of an odd group.
  template <int D, class Place>
  __device__ SixteenRows<D> load(const HeadPlaces& at, int h, const BFloat16* from, Place place) const {
    const bool wanted = there && from != nullptr;
    return {EightRows<D>::load(wanted ? from + place(head(at, h)) : nullptr),
            EightRows<D>::load(wanted && h + 1 < at.group ? from + place(head(at, h + 1)) : nullptr)};
  }
  template <int D, class Place>
  __device__ void store(const HeadPlaces& at, int h, const SixteenRows<D>& rows, BFloat16* to,
                        Place place) const {
    rows.low.store(there ? to + place(head(at, h)) : nullptr);
    rows.high.store(there && h + 1 < at.group ? to + place(head(at, h + 1)) : nullptr);
  }
  template <int D>
  __device__ EightRows<D> load_key(const HeadPlaces& at, const BFloat16* qkv) const {
    return EightRows<D>::load(there ? qkv + at.key(row, kv_head) : nullptr);
  }
  template <int D>
  __device__ EightRows<D> load_value(const HeadPlaces& at, const BFloat16* qkv) const {
    return EightRows<D>::load(there ? qkv + at.value(row, kv_head) : nullptr);
  }
  __device__ int head(const HeadPlaces& at, int h) const { return kv_head * at.group + h; }
};

__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffU, x, 1);
  return x + __shfl_xor_sync(0xffffffffU, x, 2);
}
__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffU, x, 2));
}

/// Calls f(Int<D>, Int<P>) where these kernels take the case; false otherwise.
template <class F>
bool with_replica_tiles(int head_dim, int P, F f) {
  const auto with_replicas = [&](auto D) {
    switch (P) {
      case 1:
        return f(D, Int<1>{}), true;
      case 2:
        return f(D, Int<2>{}), true;
      case 4:
        return f(D, Int<4>{}), true;
      case 8:
        return f(D, Int<8>{}), true;
      default:
        return false;
    }
  };
  if (head_dim == 64) return with_replicas(Int<64>{});
  return head_dim == 128 && with_replicas(Int<128>{});
}

}  // namespace parscale::cuda
