/// P x P attention on the tensor cores: every byte is read once and written once.
#pragma once

#include "replica_tiles.cuh"

namespace parscale::cuda {

/// Products q k (rows g, g + 8; columns 2t, 2t + 1) become softmax weights among the keys of a row's
/// position.
template <int P>
__device__ void replica_softmax(float (&c)[4], const ReplicaTile<P>& tile, float scale) {
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    float* row = c + i;
#pragma unroll
    for (int j = 0; j < 2; ++j) row[j] = tile.sees(j) ? row[j] * scale : -INFINITY;
    const float top = quad_max(fmaxf(row[0], row[1]));
    row[0] = expf(row[0] - top);
    row[1] = expf(row[1] - top);
    const float share = 1 / quad_sum(row[0] + row[1]);
    row[0] *= share;
    row[1] *= share;
  }
}

template <int D, int P>
__global__ void __launch_bounds__(ReplicaTile<P>::threads, 4)
    attend_replicas_kernel(HeadPlaces at, float scale, const BFloat16* qkv, BFloat16* out) {
  const ReplicaTile<P> tile(at);
  const auto k = tile.template load_key<D>(at, qkv), v = tile.template load_value<D>(at, qkv).transpose();
  for (int h = 0; h < at.group; h += 2) {
    const auto q = tile.template load<D>(at, h, qkv, [&](int head) { return at.query(tile.row, head); });
    float weights[4];
    q.products(weights, k);
    replica_softmax(weights, tile, scale);
    const auto sum =
        SixteenRows<D>{}.plus({pair_of(weights[0], weights[1]), pair_of(weights[2], weights[3])}, v);
    tile.store(at, h, sum, out, [&](int head) { return at.out(tile.row, 0, head); });
  }
}

template <int D, int P>
__global__ void __launch_bounds__(ReplicaTile<P>::threads)
    attend_replicas_backward_kernel(HeadPlaces at, float scale, const BFloat16* qkv, const BFloat16* d_outs,
                                    BFloat16* d_qkv) {
  const ReplicaTile<P> tile(at);
  const auto query = [&](int head) { return at.query(tile.row, head); };
  const auto k = tile.template load_key<D>(at, qkv), v = tile.template load_value<D>(at, qkv);
  EightSums<D> d_k{}, d_v{};
  for (int h = 0; h < at.group; h += 2) {
    const auto q = tile.template load<D>(at, h, qkv, query);
    const auto d_out =
        tile.template load<D>(at, h, d_outs, [&](int head) { return at.out(tile.row, 0, head); });
    float weights[4], d_scores[4];
    q.products(weights, k);
    replica_softmax(weights, tile, scale);
    d_out.products(d_scores, v);
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const float pull = quad_sum(weights[i] * d_scores[i] + weights[i + 1] * d_scores[i + 1]);
#pragma unroll
      for (int j = i; j < i + 2; ++j) d_scores[j] = weights[j] * (d_scores[j] - pull) * scale;
    }
    const unsigned d_score[2] = {pair_of(d_scores[0], d_scores[1]), pair_of(d_scores[2], d_scores[3])};
    tile.store(at, h, SixteenRows<D>{}.plus(d_score, k.transpose()), d_qkv, query);
    d_k.add(q, {transposed(d_score[0]), transposed(d_score[1])});
    d_v.add(d_out,
            {transposed(pair_of(weights[0], weights[1])), transposed(pair_of(weights[2], weights[3]))});
  }
  d_k.rows().store(tile.there ? d_qkv + at.key(tile.row, tile.kv_head) : nullptr);
  d_v.rows().store(tile.there ? d_qkv + at.value(tile.row, tile.kv_head) : nullptr);
}

}  // namespace parscale::cuda
