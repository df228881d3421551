/// Numbers on the device: every kernel computes in float, whatever its operands are stored as, and moves
/// neighbouring elements in packs of 16 bytes where memory lies so that it can.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../../core/bfloat16.hpp"
#include "runtime.hpp"

namespace parscale::cuda {

inline constexpr int warp_size = 32;

__device__ inline float load(const float* from) { return *from; }
__device__ inline float load(const BFloat16* from) {
  return __uint_as_float(static_cast<unsigned>(from->bits) << 16U);
}
__device__ inline void store(float value, float* to) { *to = value; }
__device__ inline void store(float value, BFloat16* to) {
  to->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

/// 2^x to 2 units in the last place; results under 2^-126 are 0.
__device__ inline float power_of_two(float x) {
  float power = 0;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
/// 1 / x to one unit in the last place; results under 2^-126 are 0.
__device__ inline float reciprocal(float x) {
  float result = 0;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// Elements of S in 16 bytes, the widest access of a thread.
template <class S>
inline constexpr int pack_of = 16 / static_cast<int>(sizeof(S));

/// N neighbours as they lie in memory, moved by as few accesses as they fit in.
template <class S, int N>
struct alignas(std::min(16, N* static_cast<int>(sizeof(S)))) Pack {
  S at[N];
};
/// N neighbours as numbers.
template <int N>
struct Floats {
  float at[N];
  __device__ float& operator[](int i) { return at[i]; }
  __device__ float operator[](int i) const { return at[i]; }
};

template <int N, class S>
__device__ Pack<S, N> load_pack(const S* from) {
  return *reinterpret_cast<const Pack<S, N>*>(from);
}
template <class S, int N>
__device__ Floats<N> floats(const Pack<S, N>& pack) {
  Floats<N> values;
  if constexpr (std::is_same_v<S, BFloat16> && N % 2 == 0) {
    const unsigned* pairs = reinterpret_cast<const unsigned*>(&pack);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      values[2 * i] = __uint_as_float(pairs[i] << 16U);
      values[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000U);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = load(&pack.at[i]);
  }
  return values;
}
template <int N, class S>
__device__ Floats<N> load_floats(const S* from) {
  return floats(load_pack<N>(from));
}
template <int N, class S>
__device__ void store_floats(const Floats<N>& values, S* to) {
  Pack<S, N> pack;
  if constexpr (std::is_same_v<S, BFloat16> && N % 2 == 0) {
    __nv_bfloat162* pairs = reinterpret_cast<__nv_bfloat162*>(&pack);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) pairs[i] = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) store(values[i], &pack.at[i]);
  }
  *reinterpret_cast<Pack<S, N>*>(to) = pack;
}

/// Whether tensors can be read pack by pack: `count` neighbours at a time, all of them beginning at 16 bytes.
/// An absent tensor does not hinder.
template <class S, class... T>
bool packs(Index count, const T*... tensors) {
  const auto begins = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  return count % pack_of<S> == 0 && (begins(tensors) && ...);
}

/// i / by, quickly where both have 32 bits.
__device__ inline Index quotient(Index i, Index by) {
  if (((i | by) >> 32) == 0) return static_cast<unsigned>(i) / static_cast<unsigned>(by);
  return i / by;
}

/// The sum over the lanes of a warp, in every lane; always in the same order.
template <class T>
__device__ T warp_sum(T value) {
  for (int step = warp_size / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffU, value, step);
  return value;
}
__device__ inline float warp_max(float value) {
  for (int step = warp_size / 2; step > 0; step /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffU, value, step));
  return value;
}

/// The sum over the threads of a block (a multiple of 32), in every thread; always in the same order.
template <class T>
__device__ T block_sum(T value) {
  __shared__ T sums[warp_size];
  const int warp = static_cast<int>(threadIdx.x) / warp_size,
            lane = static_cast<int>(threadIdx.x) % warp_size;
  value = warp_sum(value);
  __syncthreads();  // the sums of the call before have been read
  if (lane == 0) sums[warp] = value;
  __syncthreads();
  value = lane < static_cast<int>(blockDim.x) / warp_size ? sums[lane] : T(0);
  return warp_sum(value);
}

__device__ inline float block_max(float value) {
  __shared__ float tops[warp_size];
  const int warp = static_cast<int>(threadIdx.x) / warp_size,
            lane = static_cast<int>(threadIdx.x) % warp_size;
  value = warp_max(value);
  __syncthreads();
  if (lane == 0) tops[warp] = value;
  __syncthreads();
  value = lane < static_cast<int>(blockDim.x) / warp_size ? tops[lane] : tops[0];
  return warp_max(value);
}

/// Blocks of `per` that hold n.
inline unsigned blocks_for(Index n, Index per) { return static_cast<unsigned>((n + per - 1) / per); }

/// Calls f(i) for the numbers below n, one thread each.
template <class F>
__global__ void __launch_bounds__(256) each_kernel(Index n, F f) {
  const Index i = static_cast<Index>(blockIdx.x) * 256 + threadIdx.x;
  if (i < n) f(i);
}
template <class F>
void each(const Launch& on, const char* operation, Index n, F f) {
  if (n == 0) return;
  each_kernel<<<blocks_for(n, 256), 256, 0, on.stream>>>(n, f);
  check(cudaGetLastError(), operation);
}

/// Calls f(i) for the numbers below n, one block of `threads` threads each.
template <class F>
__global__ void block_each_kernel(Index n, F f) {
  for (Index i = blockIdx.x; i < n; i += gridDim.x) f(i);
}
template <class F>
void block_each(const Launch& on, const char* operation, Index n, int threads, std::size_t shared, F f) {
  if (n == 0) return;
  if (shared > 48 * 1024)
    check(cudaFuncSetAttribute(block_each_kernel<F>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared)),
          operation);
  const Index blocks = std::min<Index>(n, Index{1} << 30);
  block_each_kernel<<<static_cast<unsigned>(blocks), threads, shared, on.stream>>>(n, f);
  check(cudaGetLastError(), operation);
}

}  // namespace parscale::cuda
