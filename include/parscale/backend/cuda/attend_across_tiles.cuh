/// The crossing part of expanded attention on the tensor cores (attend_across.cuh says what it is). What
/// comes from replica p is a product too: the values times weights of which only those of p's keys are not
/// zero.
#pragma once

#include "replica_tiles.cuh"

namespace parscale::cuda {

/// Those of a row's two weights whose values come from replica p, as an operand.
template <int P>
__device__ unsigned weights_from(const ReplicaTile<P>& tile, int p, float first, float second) {
  return pair_of(tile.source(0) == p ? first : 0, tile.source(1) == p ? second : 0);
}

template <int D, int P>
__global__ void __launch_bounds__(ReplicaTile<P>::threads)
    attend_across_kernel(HeadPlaces at, float scale, const BFloat16* qkv, BFloat16* out, float* log_sums) {
  const ReplicaTile<P> tile(at);
  const auto k = tile.template load_key<D>(at, qkv), v = tile.template load_value<D>(at, qkv).transpose();
  for (int h = 0; h < at.group; h += 2) {
    const auto own_place = [&](int head) { return at.out(tile.row, tile.replica(), head); };
    auto own = tile.template load<D>(at, h, out, own_place);
    const auto q = tile.template load<D>(at, h, qkv, [&](int head) { return at.query(tile.row, head); });
    float weights[4];
    q.products(weights, k);
    float keep[2];  // what the own part shrinks by
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const bool there = tile.there && h + i < at.group;
      float* log_sum = log_sums + tile.row * at.heads + tile.head(at, h + i);
      const float before = there ? *log_sum : 0;
      float* row = weights + 2 * i;
#pragma unroll
      for (int j = 0; j < 2; ++j) row[j] = tile.crosses(j) ? row[j] * scale : -INFINITY;
      const float top = quad_max(fmaxf(before, fmaxf(row[0], row[1])));
      const float all = top + logf(expf(before - top) + quad_sum(expf(row[0] - top) + expf(row[1] - top)));
      row[0] = expf(row[0] - all);
      row[1] = expf(row[1] - all);
      keep[i] = expf(before - all);
      if (there && tile.column(0) == 0) *log_sum = all;
    }
    own.scale(keep[0], keep[1]);
#pragma unroll 1
    for (int p = 0; p < P; ++p) {
      const unsigned from_p[2] = {weights_from(tile, p, weights[0], weights[1]),
                                  weights_from(tile, p, weights[2], weights[3])};
      auto part = SixteenRows<D>{}.plus(from_p, v);
      if (p == tile.replica()) part = own;
      tile.store(at, h, part, out, [&](int head) { return at.out(tile.row, p, head); });
    }
  }
}

template <int D, int P>
__global__ void __launch_bounds__(ReplicaTile<P>::threads)
    attend_across_backward_kernel(HeadPlaces at, float scale, const BFloat16* qkv,
                                  AttentionGradients<BFloat16> a) {
  const ReplicaTile<P> tile(at);
  const auto query = [&](int head) { return at.query(tile.row, head); };
  BFloat16* d_key = tile.there ? a.d_qkv + at.key(tile.row, tile.kv_head) : nullptr;
  BFloat16* d_value = tile.there ? a.d_qkv + at.value(tile.row, tile.kv_head) : nullptr;
  const auto k = tile.template load_key<D>(at, qkv), v = tile.template load_value<D>(at, qkv);
  auto d_k = EightSums<D>::from(EightRows<D>::load(d_key)),
       d_v = EightSums<D>::from(EightRows<D>::load(d_value));
  for (int h = 0; h < at.group; h += 2) {
    const auto q = tile.template load<D>(at, h, qkv, query);
    float weights[4], d_scores[4] = {}, delta[2];
    q.products(weights, k);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const bool there = tile.there && h + i < at.group;
      const int head = tile.head(at, h + i);
      const float log_sum = there ? a.log_sum[tile.row * at.heads + head] : 0;
      delta[i] = there ? a.delta.at(at, tile.row, head) : 0;
#pragma unroll
      for (int j = 0; j < 2; ++j)
        weights[2 * i + j] = there && tile.crosses(j) ? expf(weights[2 * i + j] * scale - log_sum) : 0;
    }
    const unsigned turned[2] = {transposed(pair_of(weights[0], weights[1])),
                                transposed(pair_of(weights[2], weights[3]))};
#pragma unroll 1
    for (int p = 0; p < P; ++p) {
      const auto d_out = tile.template load<D>(at, h, p == tile.replica() ? nullptr : a.d_out,
                                               [&](int head) { return at.out(tile.row, p, head); });
      float d_weights[4];
      d_out.products(d_weights, v);
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (tile.source(j % 2) == p) d_scores[j] = weights[j] * (d_weights[j] - delta[j / 2]) * scale;
      const bool key_of_p = tile.replica() == p;  // the lane's row as a key
      d_v.add(d_out, {key_of_p ? turned[0] : 0, key_of_p ? turned[1] : 0});
    }
    const unsigned d_score[2] = {pair_of(d_scores[0], d_scores[1]), pair_of(d_scores[2], d_scores[3])};
    const auto d_q = tile.template load<D>(at, h, a.d_qkv, query);
    tile.store(at, h, d_q.plus(d_score, k.transpose()), a.d_qkv, query);
    d_k.add(q, {transposed(d_score[0]), transposed(d_score[1])});
  }
  d_k.rows().store(d_key);
  d_v.rows().store(d_value);
}

}  // namespace parscale::cuda
