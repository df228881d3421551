/// The aggregation's last step: P streams become their weighted sum.
#pragma once

#include "../backend.hpp"
#include "threads.hpp"
#include "vectors.hpp"

namespace parscale::cpu {

/// out = softmax(in), in place allowed.
template <class T>
void softmax(const T* in, T* out, int n) {
  T top = in[0], total = 0;
  for (int i = 1; i < n; ++i) top = in[i] > top ? in[i] : top;
  for (int i = 0; i < n; ++i) total += out[i] = exponential(in[i] - top);
  for (int i = 0; i < n; ++i) out[i] /= total;
}

/// A replica's share of the sum.
template <class T>
T smoothed(T weight, double smoothing, int replicas) {
  return weight * static_cast<T>(1 - smoothing) + static_cast<T>(smoothing / replicas);
}

template <int P, class T>
void merge(Threads& threads, const op::Merge<T, T>& a) {
  const Index hidden = a.out.cols();
  threads.run_chunks(a.out.rows(), 16, [&](Index begin, Index end) {
    for (Index n = begin; n < end; ++n) {
      T *weights = a.weights.row(n), *out = a.out.row(n), share[P];
      softmax(a.scores.row(n), weights, P);
      for (int r = 0; r < P; ++r) share[r] = smoothed(weights[r], a.smoothing, P);
      const T* streams = a.streams.data + n * hidden * P;
      for (Index j = 0; j < hidden; ++j) {
        T total = 0;
        for (int r = 0; r < P; ++r) total += share[r] * streams[j * P + r];
        out[j] = total;
      }
    }
  });
}

template <int P, class T>
void merge_backward(Threads& threads, const op::MergeBackward<T, T>& a) {
  const Index hidden = a.d_out.cols();
  threads.run_chunks(a.d_out.rows(), 16, [&](Index begin, Index end) {
    for (Index n = begin; n < end; ++n) {
      const T *weights = a.weights.row(n), *d_out = a.d_out.row(n),
              *streams = a.streams.data + n * hidden * P;
      T *d_streams = a.d_streams.data + n * hidden * P, *d_scores = a.d_scores.row(n);
      T share[P], d_weights[P] = {}, mean = 0;
      for (int r = 0; r < P; ++r) share[r] = smoothed(weights[r], a.smoothing, P);
      for (Index j = 0; j < hidden; ++j)
        for (int r = 0; r < P; ++r) {
          d_weights[r] += d_out[j] * streams[j * P + r];
          d_streams[j * P + r] = share[r] * d_out[j];
        }
      for (int r = 0; r < P; ++r) mean += d_weights[r] * weights[r];
      for (int r = 0; r < P; ++r)
        d_scores[r] = weights[r] * (d_weights[r] - mean) * static_cast<T>(1 - a.smoothing);
    }
  });
}

}  // namespace parscale::cpu
