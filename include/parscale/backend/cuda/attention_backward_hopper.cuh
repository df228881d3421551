/// Gradients of attention on Hopper, bfloat16, head sizes 64 and 128: a pass for each query's statistics, one
/// kernel for the gradients of keys and values, one for those of queries. Scores are computed in both: seven
/// products instead of five, but no gradient is ever summed through memory, so the order of every sum is
/// fixed.
#pragma once

#include <limits>

#include "attention_backward_hopper_keys.cuh"
#include "attention_backward_hopper_queries.cuh"

namespace parscale::cuda {

namespace hopper {

using AttendBackward = op::AttendBackward<BFloat16, float>;

/// The float memory that a call takes: statistics of queries [streams,A,padded], then the prefix's gradients
/// before streams and workers are summed [streams,workers,G,T,D].
struct BackwardMemory {
  int padded;  ///< S rounded up to whole tiles of queries
  Index statistics, prefix_parts;

  /// `prefix` is 0 when the prefix's gradient is not wanted.
  BackwardMemory(const Layout& layout, Index heads, Index kv_heads, int head_dim, Index prefix)
      : padded(static_cast<int>((layout.tokens + 127) / 128 * 128)),
        statistics(layout.replicas * layout.sequences * heads * padded),
        prefix_parts(layout.replicas * layout.sequences * workers * kv_heads * prefix * head_dim) {}

  Index count() const { return 2 * (statistics + prefix_parts); }
  float* log2_sum(float* memory) const { return memory; }
  float* delta(float* memory) const { return memory + statistics; }
  float* d_prefix_k(float* memory) const { return prefix_parts > 0 ? memory + 2 * statistics : nullptr; }
  float* d_prefix_v(float* memory) const {
    return prefix_parts > 0 ? memory + 2 * statistics + prefix_parts : nullptr;
  }
};

inline Index prefix_tokens(In<BFloat16> prefix) { return prefix ? prefix.extent[2] : 0; }

inline BackwardMemory backward_memory(int head_dim, const AttendBackward& a) {
  const Index prefix = a.d_prefix_k || a.d_prefix_v ? prefix_tokens(a.prefix_k) : 0;
  return {a.layout, a.heads, a.kv_heads, head_dim, prefix};
}

inline BackwardCall backward_call(int head_dim, int sources, const AttendBackward& a, float* memory,
                                  const float2* turns = nullptr) {
  const BackwardMemory parts = backward_memory(head_dim, a);
  return {.tokens = static_cast<int>(a.layout.tokens),
          .padded = parts.padded,
          .streams = static_cast<int>(a.layout.replicas * a.layout.sequences),
          .sequences = static_cast<int>(a.layout.sequences),
          .heads = static_cast<int>(a.heads),
          .kv_heads = static_cast<int>(a.kv_heads),
          .group = static_cast<int>(a.heads / a.kv_heads),
          .sources = sources,
          .prefix = static_cast<int>(prefix_tokens(a.prefix_k)),
          .scale = 1.0F / std::sqrt(static_cast<float>(head_dim)),
          .starts = a.layout.starts.data,
          .log2_sum = parts.log2_sum(memory),
          .delta = parts.delta(memory),
          .turns = turns,
          .d_qkv = a.d_qkv.data,
          .d_prefix_k = parts.d_prefix_k(memory),
          .d_prefix_v = parts.d_prefix_v(memory)};
}

/// [planes,rows,columns] in boxes of one panel.
inline CUtensorMap panel_map(const void* data, Index columns, Index rows, Index planes) {
  const auto size = [](Index n) { return static_cast<std::uint64_t>(n); };
  return tensor_map(Boxes<3>{.data = data,
                             .sizes = {size(columns), size(rows), size(planes)},
                             .strides = {size(columns) * 2, size(columns * rows) * 2},
                             .box = {panel_columns, panel_rows, 1}});
}

inline BackwardMaps backward_maps(int head_dim, int sources, const AttendBackward& a) {
  const Index streams = a.layout.replicas * a.layout.sequences, tokens = a.layout.tokens;
  const Index width = (a.heads + 2 * a.kv_heads) * head_dim, prefix = prefix_tokens(a.prefix_k);
  BackwardMaps maps{.qkv = panel_map(a.qkv.data, width, tokens, streams),
                    .d_out = panel_map(a.d_out.data, sources * a.heads * head_dim, tokens, streams),
                    .prefix_k = {},
                    .prefix_v = {}};
  if (prefix == 0) return maps;
  maps.prefix_k = panel_map(a.prefix_k.data, head_dim, prefix, a.layout.replicas * a.kv_heads);
  maps.prefix_v = panel_map(a.prefix_v.data, head_dim, prefix, a.layout.replicas * a.kv_heads);
  return maps;
}

/// A block a token of a stream, past the last ones too: log2_sum = log2(e) log_sum and delta = the sum of
/// d_out * out, over all sources, of every head.
template <int D>
__global__ void __launch_bounds__(256)
    backward_statistics_kernel(const BackwardCall call, const BFloat16* out, const BFloat16* d_out,
                               const float* log_sum, float* log2_sums, float* deltas) {
  constexpr int lanes = D / Features::count;
  const int token = static_cast<int>(blockIdx.x), stream = static_cast<int>(blockIdx.y);
  const bool real = token < call.tokens;
  const Index row = static_cast<Index>(stream) * call.tokens + token;
  const int threads = static_cast<int>(blockDim.x), features = call.heads * lanes;
  for (int i = static_cast<int>(threadIdx.x); i / warp_size * warp_size < features; i += threads) {
    const int head = i / lanes;
    float delta = 0;
    for (int source = 0; source < call.sources && real && i < features; ++source) {
      const Index at = (row * call.sources + source) * call.heads * D + i * Features::count;
      delta += load_features(out + at).dot(load_features(d_out + at));
    }
    delta = lanes_sum<lanes>(delta);
    if (i >= features || i % lanes != 0) continue;
    const Index to = call.statistics(stream, head) + token;
    log2_sums[to] = real ? log_sum[row * call.heads + head] * log2_e : __int_as_float(0x7f800000);
    deltas[to] = delta;
  }
}

template <int D>
void backward_statistics(const Launch& on, const BackwardCall& call, const AttendBackward& a, float* memory) {
  const BackwardMemory parts = backward_memory(D, a);
  const dim3 blocks(static_cast<unsigned>(call.padded), static_cast<unsigned>(call.streams));
  const int lanes = call.heads * D / Features::count, warps = (lanes + warp_size - 1) / warp_size;
  backward_statistics_kernel<D><<<blocks, std::min(256, warps * warp_size), 0, on.stream>>>(
      call, a.out.data, a.d_out.data, a.log_sum.data, parts.log2_sum(memory), parts.delta(memory));
  check(cudaGetLastError(), "attend_backward");
}

/// Launches a kernel whose `Shared` begins at the first multiple of 1024 bytes of its memory.
template <class Shared, class Kernel>
void launch_backward(const Launch& on, Kernel kernel, int blocks, const BackwardMaps& maps,
                     const BackwardCall& call) {
  constexpr int bytes = static_cast<int>(sizeof(Shared)) + 1024;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "attend_backward");
  kernel<<<static_cast<unsigned>(blocks), backward_threads, bytes, on.stream>>>(maps, call);
  check(cudaGetLastError(), "attend_backward");
}

template <int D>
void key_gradients(const Launch& on, const BackwardMaps& maps, const BackwardCall& call) {
  using Kernel = KeyGradients<D>;
  launch_backward<typename Kernel::Shared>(on, key_gradients_kernel<D>, Kernel::blocks(call), maps, call);
}
template <int D>
void query_gradients(const Launch& on, const BackwardMaps& maps, const BackwardCall& call) {
  using Kernel = QueryGradients<D>;
  launch_backward<typename Kernel::Shared>(on, query_gradients_kernel<D>,
                                           std::min(Kernel::works(call), on.multiprocessors), maps, call);
}

/// d_prefix = the parts of a replica's sequences, in order, or added to.
inline void sum_prefix_parts(const Launch& on, Index sequences, const float* parts, Out<float> d_prefix,
                             Index replicas, bool accumulate) {
  const Index inner = d_prefix.count() / replicas, count = sequences * workers;
  float* const out = d_prefix.data;
  each(on, "attend_backward", d_prefix.count(), [=] __device__(Index i) {
    const float* part = parts + i / inner * count * inner + i % inner;
    float sum = 0;
    for (Index p = 0; p < count; ++p) sum += part[p * inner];
    out[i] = accumulate ? out[i] + sum : sum;
  });
}

}  // namespace hopper

/// Whether this call can take the way of this file: no cache, addresses that the copy engine takes, sizes
/// that its coordinates and the grids hold.
inline bool attend_backward_hopper_takes(const Launch& on, int head_dim,
                                         const op::AttendBackward<BFloat16, float>& a) {
  const auto aligned = [](const auto&... view) {
    return ((reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0) && ...);
  };
  constexpr Index most = std::numeric_limits<std::int32_t>::max() / 4;
  const Index streams = a.layout.replicas * a.layout.sequences, tokens = a.layout.tokens;
  return on.compute_capability == 90 && (head_dim == 64 || head_dim == 128) && !a.layout.past &&
         tokens < most && streams < 65536 &&
         (tokens / 64 + hopper::prefix_tokens(a.prefix_k) + 2) * streams * a.heads < most &&
         aligned(a.qkv, a.prefix_k, a.prefix_v, a.out, a.d_out, a.d_qkv);
}

/// Elements of float memory that it takes; `prefix` is 0 when the prefix's gradient is not wanted.
inline Index attend_backward_hopper_scratch(const Layout& layout, Index heads, Index kv_heads, int head_dim,
                                            Index prefix) {
  return hopper::BackwardMemory(layout, heads, kv_heads, head_dim, prefix).count();
}

/// Gradients through a stream's own keys and its prefix. With more than one source (P, when expanded) the
/// statistics are those of the whole softmax, and d_out's own block is what is read of it. All of d_qkv is
/// written. `memory`: what attend_backward_hopper_scratch says, at a multiple of 16 bytes. `turns` [S,D/2]:
/// the rotation that queries and keys have been through; their gradients are those before it.
template <int D>
void attend_backward_hopper(const Launch& on, int sources, const op::AttendBackward<BFloat16, float>& a,
                            float* memory, const float2* turns = nullptr) {
  if (a.d_qkv.count() == 0) return;
  const hopper::BackwardMaps maps = hopper::backward_maps(D, sources, a);
  const hopper::BackwardCall call = hopper::backward_call(D, sources, a, memory, turns);
  hopper::backward_statistics<D>(on, call, a, memory);
  hopper::key_gradients<D>(on, maps, call);
  hopper::query_gradients<D>(on, maps, call);
  if (call.d_prefix_k == nullptr) return;
  hopper::sum_prefix_parts(on, a.layout.sequences, call.d_prefix_k, a.d_prefix_k, a.layout.replicas,
                           a.accumulate);
  hopper::sum_prefix_parts(on, a.layout.sequences, call.d_prefix_v, a.d_prefix_v, a.layout.replicas,
                           a.accumulate);
}

}  // namespace parscale::cuda
