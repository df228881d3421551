/// AdamW: one pass over weight, gradient and both moments, of many tensors in one launch. The rounded weights
/// that the model computes with are written in the same pass.
#pragma once

#include <cmath>
#include <span>

#include "../backend.hpp"
#include "pieces.cuh"

namespace parscale::cuda {

/// A parameter's update: its memory, and the step's constants rounded once.
template <class S>
struct AdamWUpdate {
  float *weight, *first, *second;
  const float* gradient;
  S* lent;
  Index count;
  float scale, beta1, beta2, rest1, rest2, epsilon, keep, rate, root2;
  bool packed;

  static AdamWUpdate of(const op::AdamW<S, float>& a) {
    const auto correction = [&](double beta) { return 1 - std::pow(beta, static_cast<double>(a.step)); };
    const auto f = [](double x) { return static_cast<float>(x); };
    return {.weight = a.weight.data,
            .first = a.first.data,
            .second = a.second.data,
            .gradient = a.gradient.data,
            .lent = a.lent.data,
            .count = a.weight.count(),
            .scale = f(a.gradient_scale),
            .beta1 = f(a.beta1),
            .beta2 = f(a.beta2),
            .rest1 = f(1 - a.beta1),
            .rest2 = f(1 - a.beta2),
            .epsilon = f(a.epsilon),
            .keep = f(1 - a.learning_rate * a.weight_decay),
            .rate = f(a.learning_rate / correction(a.beta1)),
            .root2 = f(1 / std::sqrt(correction(a.beta2))),
            .packed = packs<float>(a.weight.count(), a.weight.data, a.first.data, a.second.data,
                                   a.gradient.data, a.lent.data)};
  }

  template <int N>
  __device__ void at(Index i) const {
    Floats<N> w = load_floats<N>(weight + i), m = load_floats<N>(first + i), v = load_floats<N>(second + i);
    const Floats<N> d = load_floats<N>(gradient + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float g = d[k] * scale;
      m[k] = beta1 * m[k] + rest1 * g;
      v[k] = beta2 * v[k] + rest2 * g * g;
      w[k] = w[k] * keep - rate * m[k] / (sqrtf(v[k]) * root2 + epsilon);
    }
    store_floats(m, first + i);
    store_floats(v, second + i);
    store_floats(w, weight + i);
    if (lent != nullptr) store_floats(w, lent + i);
  }
};

inline constexpr int most_updates = 32;
inline constexpr Index update_piece = 4096;

template <class S>
__global__ void __launch_bounds__(256)
    adamw_kernel(const __grid_constant__ Pieces<AdamWUpdate<S>, most_updates> pieces) {
  const int piece = static_cast<int>(blockIdx.x), tensor = pieces.tensor_of(piece);
  const AdamWUpdate<S>& update = pieces.tensors[tensor];
  const Index begin = (piece - pieces.first[tensor]) * update_piece;
  const Index end = min(update.count, begin + update_piece);
  if (update.packed)
    for (Index i = begin + threadIdx.x * 4; i < end; i += 256 * 4) update.template at<4>(i);
  else
    for (Index i = begin + threadIdx.x; i < end; i += 256) update.template at<1>(i);
}

template <class S>
void adamw(const Launch& on, std::span<const op::AdamW<S, float>> updates) {
  for_pieces<AdamWUpdate<S>, most_updates>(
      updates, update_piece, [](const op::AdamW<S, float>& a) { return a.weight.count(); },
      [](const op::AdamW<S, float>& a) { return AdamWUpdate<S>::of(a); },
      [&](const Pieces<AdamWUpdate<S>, most_updates>& group, unsigned pieces, std::size_t) {
        if (pieces > 0) adamw_kernel<S><<<pieces, 256, 0, on.stream>>>(group);
        check(cudaGetLastError(), "adamw");
      });
}
}  // namespace parscale::cuda
