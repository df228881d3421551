/// The aggregation's end: softmax over the replicas' scores, smoothing, and the weighted sum. A block a
/// position; a thread has a few features with all their replicas, which lie side by side.
#pragma once

#include "../backend.hpp"
#include "numbers.cuh"

namespace parscale::cuda {

/// Most replicas that a model may have.
inline constexpr int most_replicas = 64;
inline constexpr int merge_threads = 256;

/// Features a thread has at once: those in 16 bytes of streams, at least one.
template <class S, int P>
inline constexpr int merged_features = std::max(1, pack_of<S> / P);

/// A replica's share of the sum.
__device__ inline float smoothed(float weight, float smoothing, int replicas) {
  return weight * (1.0F - smoothing) + smoothing / static_cast<float>(replicas);
}

/// weights = softmax(scores)
__device__ inline void softmax(float* weights, int n) {
  float top = weights[0], total = 0;
  for (int r = 1; r < n; ++r) top = fmaxf(top, weights[r]);
  for (int r = 0; r < n; ++r) total += weights[r] = expf(weights[r] - top);
  for (int r = 0; r < n; ++r) weights[r] /= total;
}

template <int P, class S>
__global__ void __launch_bounds__(merge_threads)
    merge_kernel(const S* streams, const S* scores, int hidden, float smoothing, float* weights, S* out) {
  constexpr int F = merged_features<S, P>;
  const Index n = blockIdx.x;
  float share[P];
#pragma unroll
  for (int r = 0; r < P; ++r) share[r] = load(scores + n * P + r);
  softmax(share, P);
  if (threadIdx.x == 0)
    for (int r = 0; r < P; ++r) weights[n * P + r] = share[r];
#pragma unroll
  for (int r = 0; r < P; ++r) share[r] = smoothed(share[r], smoothing, P);
#pragma unroll 4
  for (int h = static_cast<int>(threadIdx.x) * F; h < hidden; h += merge_threads * F) {
    const Floats<F* P> x = load_floats<F * P>(streams + (n * hidden + h) * P);
    Floats<F> sum{};
#pragma unroll
    for (int i = 0; i < F * P; ++i) sum[i / P] += share[i % P] * x[i];
    store_floats(sum, out + n * hidden + h);
  }
}

template <int P, class S>
__global__ void __launch_bounds__(merge_threads)
    merge_backward_kernel(const S* streams, const float* weights, int hidden, float smoothing, const S* d_out,
                          S* d_streams, S* d_scores) {
  constexpr int F = merged_features<S, P>;
  const Index n = blockIdx.x;
  float share[P], d_weights[P] = {};
#pragma unroll
  for (int r = 0; r < P; ++r) share[r] = smoothed(weights[n * P + r], smoothing, P);
#pragma unroll 4
  for (int h = static_cast<int>(threadIdx.x) * F; h < hidden; h += merge_threads * F) {
    const Floats<F> d = load_floats<F>(d_out + n * hidden + h);
    Floats<F* P> x = load_floats<F * P>(streams + (n * hidden + h) * P);
#pragma unroll
    for (int i = 0; i < F * P; ++i) {
      d_weights[i % P] += d[i / P] * x[i];
      x[i] = d[i / P] * share[i % P];
    }
    store_floats(x, d_streams + (n * hidden + h) * P);
  }
#pragma unroll
  for (int r = 0; r < P; ++r) d_weights[r] = block_sum(d_weights[r]);
  if (threadIdx.x != 0) return;
  float mean = 0;
  for (int r = 0; r < P; ++r) mean += weights[n * P + r] * d_weights[r];
  for (int r = 0; r < P; ++r)
    store(weights[n * P + r] * (d_weights[r] - mean) * (1.0F - smoothing), d_scores + n * P + r);
}

/// Any number of replicas, and tensors that lie unevenly.
template <class S>
__global__ void __launch_bounds__(merge_threads)
    merge_general_kernel(const S* streams, const S* scores, int P, int hidden, float smoothing,
                         float* weights, S* out) {
  __shared__ float share[most_replicas];
  const Index n = blockIdx.x;
  if (threadIdx.x == 0) {
    for (int r = 0; r < P; ++r) share[r] = load(scores + n * P + r);
    softmax(share, P);
    for (int r = 0; r < P; ++r) weights[n * P + r] = share[r];
    for (int r = 0; r < P; ++r) share[r] = smoothed(share[r], smoothing, P);
  }
  __syncthreads();
  for (int h = static_cast<int>(threadIdx.x); h < hidden; h += merge_threads) {
    float sum = 0;
    for (int r = 0; r < P; ++r) sum += load(streams + (n * hidden + h) * P + r) * share[r];
    store(sum, out + n * hidden + h);
  }
}
template <class S>
__global__ void __launch_bounds__(merge_threads)
    merge_backward_general_kernel(const S* streams, const float* all_weights, int P, int hidden,
                                  float smoothing, const S* d_out, S* d_streams, S* d_scores) {
  __shared__ float d_weights[most_replicas];
  const Index n = blockIdx.x;
  const float* weights = all_weights + n * P;
  for (int r = 0; r < P; ++r) {
    const float share = smoothed(weights[r], smoothing, P);
    float dot = 0;
    for (int h = static_cast<int>(threadIdx.x); h < hidden; h += merge_threads) {
      const float d = load(d_out + n * hidden + h);
      dot += d * load(streams + (n * hidden + h) * P + r);
      store(d * share, d_streams + (n * hidden + h) * P + r);
    }
    dot = block_sum(dot);
    if (threadIdx.x == 0) d_weights[r] = dot;
  }
  if (threadIdx.x != 0) return;
  float mean = 0;
  for (int r = 0; r < P; ++r) mean += weights[r] * d_weights[r];
  for (int r = 0; r < P; ++r)
    store(weights[r] * (d_weights[r] - mean) * (1.0F - smoothing), d_scores + n * P + r);
}

/// Whether a position's streams can be moved 16 bytes at a time, P being 2, 4 or 8.
template <class S, class... T>
bool merges_by_packs(int replicas, Index hidden, const T*... tensors) {
  return (replicas == 2 || replicas == 4 || replicas == 8) && packs<S>(hidden, tensors...);
}

template <class S>
void merge(const Launch& on, int replicas, const op::Merge<S, float>& a) {
  const int hidden = static_cast<int>(a.out.cols());
  const float smoothing = static_cast<float>(a.smoothing);
  const unsigned positions = static_cast<unsigned>(a.out.rows());
  if (positions == 0) return;
  const auto run = [&](auto kernel) {
    kernel<<<positions, merge_threads, 0, on.stream>>>(a.streams.data, a.scores.data, hidden, smoothing,
                                                       a.weights.data, a.out.data);
  };
  if (!merges_by_packs<S>(replicas, hidden, a.streams.data, a.out.data))
    merge_general_kernel<S><<<positions, merge_threads, 0, on.stream>>>(
        a.streams.data, a.scores.data, replicas, hidden, smoothing, a.weights.data, a.out.data);
  else if (replicas == 2)
    run(merge_kernel<2, S>);
  else if (replicas == 4)
    run(merge_kernel<4, S>);
  else
    run(merge_kernel<8, S>);
  check(cudaGetLastError(), "merge");
}

template <class S>
void merge_backward(const Launch& on, int replicas, const op::MergeBackward<S, float>& a) {
  const int hidden = static_cast<int>(a.d_out.cols());
  const float smoothing = static_cast<float>(a.smoothing);
  const unsigned positions = static_cast<unsigned>(a.d_out.rows());
  if (positions == 0) return;
  const auto run = [&](auto kernel) {
    kernel<<<positions, merge_threads, 0, on.stream>>>(a.streams.data, a.weights.data, hidden, smoothing,
                                                       a.d_out.data, a.d_streams.data, a.d_scores.data);
  };
  if (!merges_by_packs<S>(replicas, hidden, a.streams.data, a.d_out.data, a.d_streams.data))
    merge_backward_general_kernel<S><<<positions, merge_threads, 0, on.stream>>>(
        a.streams.data, a.weights.data, replicas, hidden, smoothing, a.d_out.data, a.d_streams.data,
        a.d_scores.data);
  else if (replicas == 2)
    run(merge_backward_kernel<2, S>);
  else if (replicas == 4)
    run(merge_backward_kernel<4, S>);
  else
    run(merge_backward_kernel<8, S>);
  check(cudaGetLastError(), "merge_backward");
}

}  // namespace parscale::cuda
