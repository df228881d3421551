/// AdamW: one pass over weight, gradient and both moments.
#pragma once

#include <algorithm>
#include <cmath>

#include "../backend.hpp"
#include "products.hpp"
#include "threads.hpp"

namespace parscale::cpu {

/// The step's constants, rounded once.
template <class T>
struct AdamWConstants {
  T scale, beta1, beta2, rest1, rest2, epsilon, keep, rate, root2;

  explicit AdamWConstants(const op::AdamW<T>& a)
      : scale(static_cast<T>(a.gradient_scale)),
        beta1(static_cast<T>(a.beta1)),
        beta2(static_cast<T>(a.beta2)),
        rest1(static_cast<T>(1 - a.beta1)),
        rest2(static_cast<T>(1 - a.beta2)),
        epsilon(static_cast<T>(a.epsilon)),
        keep(static_cast<T>(1 - a.learning_rate * a.weight_decay)),
        rate(static_cast<T>(a.learning_rate / correction(a.beta1, a.step))),
        root2(static_cast<T>(1 / std::sqrt(correction(a.beta2, a.step)))) {}

 private:
  static double correction(double beta, Index step) { return 1 - std::pow(beta, static_cast<double>(step)); }
};

/// Elements [begin, begin + n), n at most root_chunk.
template <class T>
void adamw_chunk(const op::AdamW<T>& a, const AdamWConstants<T>& c, Index begin, Index n) {
  T *weight = a.weight.data + begin, *first = a.first.data + begin, *second = a.second.data + begin;
  const T* gradient = a.gradient.data + begin;
  alignas(64) T roots[root_chunk] = {};
  for (Index i = 0; i < n; ++i) {
    const T g = gradient[i] * c.scale;
    first[i] = c.beta1 * first[i] + c.rest1 * g;
    roots[i] = second[i] = c.beta2 * second[i] + c.rest2 * g * g;
  }
  square_roots(roots);
  for (Index i = 0; i < n; ++i)
    weight[i] = weight[i] * c.keep - c.rate * first[i] / (roots[i] * c.root2 + c.epsilon);
}

template <class T>
void adamw(Threads& threads, const op::AdamW<T>& a) {
  const AdamWConstants<T> constants(a);
  threads.run_chunks(a.weight.count(), 64 * root_chunk, [&](Index begin, Index end) {
    for (Index i = begin; i < end; i += root_chunk)
      adamw_chunk(a, constants, i, std::min(root_chunk, end - i));
  });
}

}  // namespace parscale::cpu
