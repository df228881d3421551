/// Keys and values of new tokens go to their places in the cache.
#pragma once

#include "attention_places.hpp"
#include "threads.hpp"

namespace parscale::cpu {

template <class T>
void append(Threads& threads, Index head_dim, const op::Append<T>& a) {
  const HeadPlaces at(a.layout, a.heads, a.kv_heads, head_dim, 1);
  const Index capacity = a.keys.extent[2];
  threads.run_chunks(a.layout.rows(), 64, [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const Index stream = row / at.tokens, sequence = stream % at.sequences;
      const Index slot = (a.layout.past ? a.layout.past.data[sequence] : 0) + row % at.tokens;
      for (Index g = 0; g < at.kv_heads; ++g) {
        const Index place = ((stream * at.kv_heads + g) * capacity + slot) * head_dim;
        std::copy_n(a.qkv.data + at.key(row, g), head_dim, a.keys.data + place);
        std::copy_n(a.qkv.data + at.value(row, g), head_dim, a.values.data + place);
      }
    }
  });
}

}  // namespace parscale::cpu
