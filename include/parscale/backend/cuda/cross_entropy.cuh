/// The cross-entropy of rows of logits, which become their own gradient.
///
/// A row of a large vocabulary is longer than a block's shared memory. From compute capability 9.0 on, a
/// cluster of blocks holds it together and reads it once; elsewhere one block reads it twice.
#pragma once

#include <cmath>

#include "../backend.hpp"
#include "numbers.cuh"

namespace parscale::cuda {

/// A running sum of exp(x - top), with the largest x so far as top.
struct ExpSum {
  float top = -INFINITY, sum = 0;

  template <int N>
  __device__ void add(const Floats<N>& x) {
    float next = top;
#pragma unroll
    for (int i = 0; i < N; ++i) next = fmaxf(next, x[i]);
    if (next == -INFINITY) return;
    sum *= __expf(top - next);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += __expf(x[i] - next);
    top = next;
  }
  __device__ void add(const ExpSum& other) {
    const float next = fmaxf(top, other.top);
    if (next == -INFINITY) return;
    sum = sum * __expf(top - next) + other.sum * __expf(other.top - next);
    top = next;
  }
  /// Over all threads of the block, in each of them.
  __device__ ExpSum of_block() const {
    ExpSum all;
    all.top = block_max(top);
    all.sum = block_sum(top == -INFINITY ? 0.0F : sum * __expf(top - all.top));
    return all;
  }
};

/// One row's target, and what its logits become.
struct RowGradient {
  Token target;
  float d_scale, top, share;

  __device__ RowGradient(Token row_target, float scale, const ExpSum& all)
      : target(row_target), d_scale(scale), top(all.top), share(scale / all.sum) {}
  /// The gradients of the i-th pack's logits.
  template <int N>
  __device__ Floats<N> of(int i, Floats<N> x) const {
#pragma unroll
    for (int k = 0; k < N; ++k) x[k] = __expf(x[k] - top) * share;
    if (target / N == i)
#pragma unroll
      for (int k = 0; k < N; ++k) x[k] -= target % N == k ? d_scale : 0.0F;
    return x;
  }
};
__device__ inline double cross_entropy(const ExpSum& all, float logit) {
  return static_cast<double>(logf(all.sum)) + static_cast<double>(all.top - logit);
}

inline constexpr int cross_entropy_threads = 1024;

/// A block a row, whatever its length.
template <int N, class S>
__global__ void __launch_bounds__(cross_entropy_threads)
    cross_entropy_kernel(S* logits, Index vocabulary, const Token* targets, float d_scale, double* losses) {
  S* row = logits + static_cast<Index>(blockIdx.x) * vocabulary;
  const Token target = targets[blockIdx.x];
  const int packs = static_cast<int>(vocabulary / N), thread = static_cast<int>(threadIdx.x);
  if (target < 0) {
    if (thread == 0) losses[blockIdx.x] = 0;
    if (d_scale != 0)
      for (int i = thread; i < packs; i += cross_entropy_threads) store_floats(Floats<N>{}, row + i * N);
    return;
  }
  ExpSum own;
#pragma unroll 4
  for (int i = thread; i < packs; i += cross_entropy_threads) own.add(load_floats<N>(row + i * N));
  const ExpSum all = own.of_block();
  if (thread == 0) losses[blockIdx.x] = cross_entropy(all, load(row + target));
  if (d_scale == 0) return;
  __syncthreads();  // the target's logit has been read
  const RowGradient gradient(target, d_scale, all);
#pragma unroll 4
  for (int i = thread; i < packs; i += cross_entropy_threads)
    store_floats(gradient.of(i, load_floats<N>(row + i * N)), row + i * N);
}

#if __CUDA_ARCH__ >= 900
// The cluster that this block belongs to. By hand: the toolkit's header for it brings in another namespace
// cuda.
__device__ inline int cluster_blocks() {
  int blocks = 0;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
  return blocks;
}
__device__ inline int cluster_rank() {
  int rank = 0;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ inline void cluster_sync() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}
/// A number in shared memory, as the block `rank` of the cluster has it.
__device__ inline float load_of_block(const float& here, int rank) {
  float there = 0;
  asm volatile(
      "{\n.reg .u32 address;\nmapa.shared::cluster.u32 address, %1, %2;\nld.shared::cluster.f32 %0, "
      "[address];\n}"
      : "=f"(there)
      : "r"(static_cast<unsigned>(__cvta_generic_to_shared(&here))), "r"(rank)
      : "memory");
  return there;
}
#endif

inline constexpr int cluster_threads = 512;

/// A cluster of blocks a row, each with `piece` packs of it in shared memory.
template <class S>
__global__ void __launch_bounds__(cluster_threads)
    cross_entropy_cluster_kernel(S* logits, Index vocabulary, int piece, const Token* targets, float d_scale,
                                 double* losses) {
#if __CUDA_ARCH__ >= 900
  constexpr int N = pack_of<S>;
  extern __shared__ uint4 kept[];  // [piece]
  __shared__ ExpSum part;
  const int blocks = cluster_blocks(), rank = cluster_rank();
  const int begin = rank * piece, thread = static_cast<int>(threadIdx.x);
  const int count = min(piece, static_cast<int>(vocabulary / N) - begin);
  const Index n = static_cast<Index>(blockIdx.x) / blocks;
  S *row = logits + n * vocabulary, *own_row = row + begin * N;
  const Token target = targets[n];
  if (target < 0) {  // the whole cluster
    if (rank == 0 && thread == 0) losses[n] = 0;
    if (d_scale != 0)
      for (int i = thread; i < count; i += cluster_threads) store_floats(Floats<N>{}, own_row + i * N);
    return;
  }
  Pack<S, N>* own_pack = reinterpret_cast<Pack<S, N>*>(kept);
  ExpSum own;
#pragma unroll 4
  for (int i = thread; i < count; i += cluster_threads) {
    own_pack[i] = load_pack<N>(own_row + i * N);
    own.add(floats(own_pack[i]));
  }
  own = own.of_block();
  if (thread == 0) part = own;
  cluster_sync();
  ExpSum all;
  for (int other = 0; other < blocks; ++other)
    all.add(ExpSum{load_of_block(part.top, other), load_of_block(part.sum, other)});
  if (thread == 0 && target >= begin * N && target < (begin + count) * N)
    losses[n] = cross_entropy(all, load(reinterpret_cast<const S*>(kept) + target - begin * N));
  const RowGradient gradient(target, d_scale, all);
#pragma unroll 4
  for (int i = thread; d_scale != 0 && i < count; i += cluster_threads)
    store_floats(gradient.of(begin + i, floats(own_pack[i])), own_row + i * N);
  cluster_sync();  // the others may still read `part`
#endif
}

/// Blocks that hold a row together: few enough bytes each that three share a multiprocessor, up to the eight
/// that any GPU with clusters grants. 0: it does not fit, or the code at hand was compiled for older GPUs.
template <class S>
int cross_entropy_cluster(Index vocabulary) {
  constexpr Index shared = 75 * 1024;
  cudaFuncAttributes kernel{};
  check(cudaFuncGetAttributes(&kernel, cross_entropy_cluster_kernel<S>), "head_loss");
  if (kernel.ptxVersion < 90) return 0;
  for (int blocks = 1; blocks <= 8; blocks *= 2)
    if ((vocabulary / pack_of<S> + blocks - 1) / blocks * 16 <= shared) return blocks;
  return 0;
}

template <class S>
void launch_cross_entropy_clusters(const Launch& on, int blocks, Out<S> logits, const Token* targets,
                                   float d_scale, double* losses) {
  const Index vocabulary = logits.cols();
  const int piece = static_cast<int>((vocabulary / pack_of<S> + blocks - 1) / blocks);
  check(cudaFuncSetAttribute(cross_entropy_cluster_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             piece * 16),
        "head_loss");
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(logits.rows() * blocks));
  config.blockDim = dim3(cluster_threads);
  config.dynamicSmemBytes = static_cast<std::size_t>(piece) * 16;
  config.stream = on.stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, cross_entropy_cluster_kernel<S>, logits.data, vocabulary, piece, targets,
                           d_scale, losses),
        "head_loss");
}

/// losses [rows] of logits [rows,V]; with d_scale they become d_scale * (softmax - one at the target). A
/// target that is negative does not count.
template <class S>
void cross_entropy(const Launch& on, Out<S> logits, const Token* targets, float d_scale, double* losses) {
  const Index vocabulary = logits.cols();
  const bool packed = packs<S>(vocabulary, logits.data);
  if (const int blocks = packed ? cross_entropy_cluster<S>(vocabulary) : 0)
    return launch_cross_entropy_clusters(on, blocks, logits, targets, d_scale, losses);
  const auto run = [&](auto kernel) {
    kernel<<<static_cast<unsigned>(logits.rows()), cross_entropy_threads, 0, on.stream>>>(
        logits.data, vocabulary, targets, d_scale, losses);
  };
  packed ? run(cross_entropy_kernel<pack_of<S>, S>) : run(cross_entropy_kernel<1, S>);
  check(cudaGetLastError(), "head_loss");
}

}  // namespace parscale::cuda
