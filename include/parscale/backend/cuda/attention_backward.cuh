/// Gradients of attention: what the softmax's derivative subtracts, then the own part by the kernels that
/// suit, then the crossing part.
#pragma once

#include "attention.cuh"
#include "attention_backward_hopper.cuh"
#include "attention_gradients.cuh"
#include "rotate.cuh"

namespace parscale::cuda {

template <class S>
void attend_delta(const Launch& on, const HeadPlaces& places, const S* d_out, const S* out, Deltas delta) {
  const HeadPlaces at = places;
  const int lanes = lanes_of_head(at.dim);
  lanes_each(on, "attend_backward", at.rows() * at.heads, lanes, [=] __device__(Index task, int lane) {
    const int d = lane * Features::count, head = static_cast<int>(task % at.heads);
    float sum = 0;
    for (int source = 0; source < at.sources; ++source) {
      if (task < 0 || d >= at.dim) continue;
      const Index place = at.out(task / at.heads, source, head) + d;
      sum += load_features(d_out + place).dot(load_features(out + place));
    }
    sum = lanes_sum(sum, lanes);
    if (task >= 0 && lane == 0) delta.at(at, task / at.heads, head) = sum;
  });
}

/// total[i] = the sum over sequences of their parts, in order, or added to.
inline void add_prefix_parts(const Launch& on, Index sequences, const float* parts, Out<float> total,
                             bool accumulate) {
  const Index count = total.count();
  each(on, "attend_backward", count, [=] __device__(Index i) {
    float sum = 0;
    for (Index b = 0; b < sequences; ++b) sum += parts[b * count + i];
    total.data[i] = accumulate ? total.data[i] + sum : sum;
  });
}

/// d_q by tiles, and d_k and d_v with the parts of the prefix's gradient.
template <class Tiles, class S>
void attend_query_gradients(const Launch& on, const AttentionInputs<S>& in, const AttentionGradients<S>& g) {
  const Index tiles = tiles_of(in.at.tokens * in.at.group, Tiles::height);
  launch_tiles<Tiles>(on, "attend_backward", attend_query_gradient_kernel<Tiles, S>,
                      tiles * in.at.streams() * in.at.kv_heads,
                      2 * Tiles::tall + 2 * Tiles::wide + Tiles::work_elements, 0, in, g);
}
template <class Tiles, class S>
void attend_key_gradients(const Launch& on, const AttentionInputs<S>& in, const AttentionGradients<S>& g) {
  const Index prefix_tiles = g.d_prefix_k != nullptr ? tiles_of(in.prefix, Tiles::height) : 0;
  const Index tiles = prefix_tiles + tiles_of(in.at.tokens, Tiles::height);
  launch_tiles<Tiles>(on, "attend_backward", attend_key_gradient_kernel<Tiles, S>,
                      tiles * in.at.streams() * in.at.kv_heads,
                      2 * Tiles::tall + (1 + Tiles::stages) * Tiles::wide + Tiles::work_elements,
                      2 * static_cast<int>(sizeof(QueryColumns<Tiles>)), in, g);
}

/// Gradients of the own part by tiles that suit type and head size.
template <class S>
void attend_backward_tiles(const Launch& on, const AttentionInputs<S>& in, const AttentionGradients<S>& g) {
  const auto with = [&]<class QueryTiles, class KeyTiles>(QueryTiles, KeyTiles) {
    attend_query_gradients<QueryTiles>(on, in, g);
    attend_key_gradients<KeyTiles>(on, in, g);
  };
  if constexpr (std::is_same_v<S, BFloat16>) {
    if (in.at.dim <= 64) return with(MmaTiles<64, 2>{}, MmaTiles<64, 2>{});
    if (in.at.dim <= 128) return with(MmaTiles<128, 2, 4, 32>{}, MmaTiles<128, 1, 8>{});
  } else {
    if (in.at.dim <= 64) return with(FmaTiles<64>{}, FmaTiles<64>{});
    if (in.at.dim <= 128) return with(FmaTiles<128>{}, FmaTiles<128>{});
  }
  with(FmaTiles<256>{}, FmaTiles<256>{});
}

/// The float scratch memory of a backward by tiles: delta [P*B,A,S], then the parts of the prefix's
/// gradients.
struct BackwardParts {
  Index deltas, prefix;  ///< elements

  BackwardParts(const Layout& layout, Index heads, Index prefix_gradient)
      : deltas(layout.rows() * heads), prefix(layout.sequences * prefix_gradient) {}
  Index count() const { return deltas + 2 * prefix; }
};

/// Elements of float scratch memory that attend_backward takes at most. `prefix` is T, or 0 when the prefix's
/// gradient is not wanted.
inline Index attend_backward_scratch(const Layout& layout, Index heads, Index kv_heads, int head_dim,
                                     Index prefix) {
  const Index gradient = layout.replicas * kv_heads * prefix * head_dim;
  const Index by_tiles = BackwardParts(layout, heads, gradient).count();
  if (head_dim != 64 && head_dim != 128) return by_tiles;
  return std::max(by_tiles, attend_backward_hopper_scratch(layout, heads, kv_heads, head_dim, prefix));
}

/// Gradients of the own part by tiles; the deltas of all queries.
template <class S>
Deltas attend_backward_own(const Launch& on, const AttentionInputs<S>& in,
                           const op::AttendBackward<S, float>& a) {
  const Index prefix = std::max(a.d_prefix_k.count(), a.d_prefix_v.count());  // either may be frozen
  const BackwardParts parts(a.layout, a.heads, prefix);
  auto* memory = on.scratch.take<float>(parts.count());
  const Deltas delta{memory + 2 * parts.prefix, in.at.tokens};
  float* d_prefix_k = prefix > 0 ? memory : nullptr;
  float* d_prefix_v = prefix > 0 ? memory + parts.prefix : nullptr;
  attend_delta(on, in.at, a.d_out.data, a.out.data, delta);
  attend_backward_tiles<S>(on, in,
                           {a.d_out.data, a.log_sum.data, delta, a.d_qkv.data, d_prefix_k, d_prefix_v});
  if (prefix > 0) {
    add_prefix_parts(on, in.at.sequences, d_prefix_k, a.d_prefix_k, a.accumulate);
    add_prefix_parts(on, in.at.sequences, d_prefix_v, a.d_prefix_v, a.accumulate);
  }
  return delta;
}

/// The same by Hopper's kernels.
inline Deltas attend_backward_own_hopper(const Launch& on, int head_dim, int P,
                                         const op::AttendBackward<BFloat16, float>& a, const float2* turns) {
  const hopper::BackwardMemory parts = hopper::backward_memory(head_dim, a);
  auto* memory = on.scratch.take<float>(parts.count());
  with_hopper_head(head_dim, [&]<int D>(Int<D>) { attend_backward_hopper<D>(on, P, a, memory, turns); });
  return {parts.delta(memory), parts.padded};
}

/// Both kinds, as in attend. Gradients are taken back through the rotation where they are stored, unless
/// more is added to them.
template <class S>
void attend_backward(const Launch& on, RotaryTables& tables, int head_dim, int P,
                     const op::AttendBackward<S, float>& a) {
  const AttentionInputs<S> in = attention_inputs<S>(head_dim, P, a);
  if (in.at.positions == 0) return;
  bool rotated = a.rotary_theta != 0;
  const auto own = [&] {
    if constexpr (std::is_same_v<S, BFloat16>) {
      if (attend_backward_hopper_takes(on, head_dim, a)) {
        const bool at_once = rotated && P == 1;
        rotated = rotated && !at_once;
        return attend_backward_own_hopper(
            on, head_dim, P, a,
            at_once ? rotary_turns(on, tables.of(false), a.layout.tokens, head_dim, a.rotary_theta)
                    : nullptr);
      }
    }
    return attend_backward_own<S>(on, in, a);
  };
  const Deltas delta = own();
  if (P > 1)
    attend_across_backward<S>(on, in.at, in.qkv, {a.d_out.data, a.log_sum.data, delta, a.d_qkv.data});
  if (rotated) rotate<S>(on, tables, head_dim, before_rotation(a));
}

}  // namespace parscale::cuda
