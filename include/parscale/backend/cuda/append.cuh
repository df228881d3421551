/// Keys and values of new tokens go to their places in the cache.
#pragma once

#include "attention_places.cuh"
#include "vectors.cuh"

namespace parscale::cuda {

template <class S>
void append(const Launch& on, int head_dim, const op::Append<S>& a) {
  const HeadPlaces at(a.layout, a.heads, a.kv_heads, head_dim, 1);
  const Index capacity = a.keys.extent[2], pieces = head_dim / Features::count;
  const Index* past = a.layout.past.data;
  const S* qkv = a.qkv.data;
  S *keys = a.keys.data, *values = a.values.data;
  each(on, "append", at.rows() * at.kv_heads * pieces, [=] __device__(Index i) {
    const int d = static_cast<int>(i % pieces) * Features::count;
    const int kv_head = static_cast<int>(i / pieces % at.kv_heads);
    const Index row = i / pieces / at.kv_heads, stream = row / at.tokens;
    const Index slot = (past != nullptr ? past[stream % at.sequences] : 0) + row % at.tokens;
    const Index place = ((stream * at.kv_heads + kv_head) * capacity + slot) * at.dim + d;
    store_features(load_features(qkv + at.key(row, kv_head) + d), keys + place);
    store_features(load_features(qkv + at.value(row, kv_head) + d), values + place);
  });
}

}  // namespace parscale::cuda
