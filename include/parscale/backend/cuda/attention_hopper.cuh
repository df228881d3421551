/// Attention with a prefix on Hopper, forward: bfloat16, prefill and training. In each block one warpgroup
/// loads tiles with the copy engine, two others keep the scores, softmax and results of 64 queries each in
/// registers.
///
/// Keys come in tiles from the diagonal down to the first one seen, then the prefix in tiles of its own,
/// which nothing masks. So each query meets its own key first and its maximum is a number ever after. A block
/// works off a fixed share of the tiles of queries, the longest first.
#pragma once

#include <algorithm>
#include <cmath>

#include "../../core/bfloat16.hpp"
#include "../backend.hpp"
#include "attention_hopper_multiplier.cuh"

namespace parscale::cuda {
namespace hopper {

template <int D>
__global__ void __launch_bounds__(AttendTiles<D>::threads, 1)
    attend_kernel(const __grid_constant__ AttendPlan plan) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL  // other targets of one build get an empty kernel, which no call reaches
  using Tiles = AttendTiles<D>;
  extern __shared__ __align__(1024) std::uint8_t memory[];
  AttendShared<D>& shared = *reinterpret_cast<AttendShared<D>*>(memory);
  if (threadIdx.x == 0) shared.init();
  __syncthreads();
  const int warpgroup = warpgroup_index();
  if (warpgroup == Tiles::warpgroups) {
    drop_registers<Tiles::loader_registers>();
    if (threadIdx.x % warpgroup_size == 0) {
      AttendLoader<D> loader(plan, shared);
      each_work<D>(plan, [&](const AttendWork<D>& work) { loader.run(work); });
    }
  } else {
    raise_registers<Tiles::registers>();
    AttendMultiplier<D> multiplier(plan, shared, warpgroup);
    each_work<D>(plan, [&](const AttendWork<D>& work) { multiplier.run(work); });
  }
#endif
}

/// Rows of qkv in boxes of `rows` tokens by one head.
inline CUtensorMap head_map(const op::Attend<BFloat16, float>& a, int head_dim, int rows) {
  const auto u = [](Index n) { return static_cast<std::uint64_t>(n); };
  const std::uint64_t pitch = u(a.qkv.cols()) * 2;
  return tensor_map<4>({.data = a.qkv.data,
                        .sizes = {panel_columns, u(a.layout.tokens), u(a.qkv.cols()) / panel_columns,
                                  u(a.layout.replicas * a.layout.sequences)},
                        .strides = {pitch, row_bytes, pitch * u(a.layout.tokens)},
                        .box = {panel_columns, static_cast<std::uint32_t>(rows),
                                static_cast<std::uint32_t>(head_dim / panel_columns), 1}});
}
inline CUtensorMap prefix_map(In<BFloat16> prefix, int head_dim, int rows) {
  const auto u = [](Index n) { return static_cast<std::uint64_t>(n); };
  const std::uint64_t pitch = u(head_dim) * 2, tokens = u(prefix.extent[2]);
  return tensor_map<4>(
      {.data = prefix.data,
       .sizes = {panel_columns, tokens, u(head_dim) / panel_columns, u(prefix.extent[0] * prefix.extent[1])},
       .strides = {pitch, row_bytes, pitch * tokens},
       .box = {panel_columns, static_cast<std::uint32_t>(rows),
               static_cast<std::uint32_t>(head_dim / panel_columns), 1}});
}

template <int D>
AttendPlan attend_plan(const op::Attend<BFloat16, float>& a, int sources) {
  using Tiles = AttendTiles<D>;
  const auto i = [](Index n) { return static_cast<int>(n); };
  AttendPlan plan{};
  plan.queries = head_map(a, D, Tiles::rows);
  plan.keys = head_map(a, D, Tiles::keys);
  if (a.prefix_k) {
    plan.prefix_k = prefix_map(a.prefix_k, D, Tiles::prefix_keys);
    plan.prefix_v = prefix_map(a.prefix_v, D, Tiles::prefix_keys);
    plan.prefix = i(a.prefix_k.extent[2]);
  }
  plan.streams = i(a.layout.replicas * a.layout.sequences);
  plan.sequences = i(a.layout.sequences);
  plan.tokens = i(a.layout.tokens);
  plan.heads = i(a.heads);
  plan.kv_heads = i(a.kv_heads);
  plan.sources = sources;
  plan.starts = a.layout.starts.data;
  plan.out = reinterpret_cast<__nv_bfloat16*>(a.out.data);
  plan.log_sum = a.log_sum.data;
  plan.scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(D)));
  return plan;
}

}  // namespace hopper

/// Whether attend_hopper computes this: prefill or training on Hopper with head size 64 or 128.
inline bool attend_hopper_takes(const Launch& on, const op::Attend<BFloat16, float>& a) {
  const Index head_dim = a.qkv.cols() / (a.heads + 2 * a.kv_heads);
  return on.compute_capability == 90 && (head_dim == 64 || head_dim == 128) && !a.layout.past && !a.keys;
}

/// `sources` is 1, or P for the part of expanded attention over a stream's own keys: it is written to the
/// replica's own block of A*D columns of out, normalised by its own sum, whose logarithm log_sum gets.
template <int D>
void attend_hopper(const Launch& on, int sources, const op::Attend<BFloat16, float>& a) {
  using Tiles = hopper::AttendTiles<D>;
  if (a.layout.rows() == 0) return;
  const hopper::AttendPlan plan = hopper::attend_plan<D>(a, sources);
  constexpr int shared = static_cast<int>(sizeof(hopper::AttendShared<D>));
  check(cudaFuncSetAttribute(hopper::attend_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
        "attend");
  const Index works = a.layout.replicas * a.layout.sequences * a.heads *
                      ((a.layout.tokens + Tiles::queries - 1) / Tiles::queries);
  const auto blocks = static_cast<unsigned>(std::min<Index>(works, on.multiprocessors));
  hopper::attend_kernel<D><<<blocks, Tiles::threads, shared, on.stream>>>(plan);
  check(cudaGetLastError(), "attend");
}

}  // namespace parscale::cuda
