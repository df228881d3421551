/// Eight features at once, and the lanes that share a head's features: 16 bytes of bf16 a lane.
#pragma once

#include "mma.cuh"

namespace parscale::cuda {

/// Eight neighbouring features of a head, widened.
struct Features {
  static constexpr int count = 8;
  float value[count];

  __device__ float& operator[](int i) { return value[i]; }
  __device__ float operator[](int i) const { return value[i]; }
  __device__ void add(const Features& x, float factor) {
#pragma unroll
    for (int i = 0; i < count; ++i) value[i] = fmaf(factor, x[i], value[i]);
  }
  __device__ float dot(const Features& x) const {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < count; ++i) sum = fmaf(value[i], x[i], sum);
    return sum;
  }
  __device__ Features operator*(float factor) const {
    Features scaled{};
    scaled.add(*this, factor);
    return scaled;
  }
};

__device__ inline Features load_features(const float* from) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
__device__ inline Features widen(uint4 x) {
  return {{low_half(x.x), high_half(x.x), low_half(x.y), high_half(x.y), low_half(x.z), high_half(x.z),
           low_half(x.w), high_half(x.w)}};
}
__device__ inline Features load_features(const BFloat16* from) {
  return widen(*reinterpret_cast<const uint4*>(from));
}
__device__ inline void store_features(const Features& x, float* to) {
  reinterpret_cast<float4*>(to)[0] = {x[0], x[1], x[2], x[3]};
  reinterpret_cast<float4*>(to)[1] = {x[4], x[5], x[6], x[7]};
}
__device__ inline void store_features(const Features& x, BFloat16* to) {
  *reinterpret_cast<uint4*>(to) = {pair_of(x[0], x[1]), pair_of(x[2], x[3]), pair_of(x[4], x[5]),
                                   pair_of(x[6], x[7])};
}

__device__ inline void store_pair(float first, float second, float* to) {
  *reinterpret_cast<float2*>(to) = {first, second};
}
__device__ inline void store_pair(float first, float second, BFloat16* to) {
  *reinterpret_cast<unsigned*>(to) = pair_of(first, second);
}

/// The lanes that share one head: a power of two, at least D / 8 of them.
__host__ __device__ constexpr int lanes_of_head(int head_dim) {
  int lanes = 1;
  while (lanes * Features::count < head_dim) lanes *= 2;
  return lanes;
}

/// The sum over `lanes` neighbouring lanes (a power of two, aligned), in each of them.
__device__ inline float lanes_sum(float value, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffU, value, step);
  return value;
}
template <int lanes>
__device__ float lanes_sum(float value) {
#pragma unroll
  for (int step = lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffU, value, step);
  return value;
}

template <int lanes>
__device__ float lanes_max(float value) {
#pragma unroll
  for (int step = lanes / 2; step > 0; step /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffU, value, step));
  return value;
}

/// Calls f(task, lane) for the tasks below n with `lanes` lanes each. All lanes of a warp stay together, so f
/// may shuffle; a task at or beyond n is handed over as -1 and must do the same shuffles.
template <class F>
__global__ void __launch_bounds__(256) lanes_each_kernel(Index n, int lanes, F f) {
  const Index thread = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
  const Index task = thread / lanes;
  f(task < n ? task : Index{-1}, static_cast<int>(thread % lanes));
}
template <class F>
void lanes_each(const Launch& on, const char* operation, Index n, int lanes, F f) {
  if (n == 0) return;
  constexpr int threads = 256;
  const Index blocks = (n * lanes + threads - 1) / threads;
  lanes_each_kernel<<<static_cast<unsigned>(blocks), threads, 0, on.stream>>>(n, lanes, f);
  check(cudaGetLastError(), operation);
}

}  // namespace parscale::cuda
