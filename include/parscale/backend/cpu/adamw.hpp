/// AdamW: one pass over weight, gradient and both moments.
#pragma once

#include <cmath>

#include "../backend.hpp"
#include "threads.hpp"
#include "vectors.hpp"

namespace parscale::cpu {

/// The step's constants, rounded once.
template <class T>
struct AdamWConstants {
  T scale, beta1, beta2, rest1, rest2, epsilon, keep, rate, root2;

  explicit AdamWConstants(const op::AdamW<T, T>& a)
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

template <class T>
void adamw(Threads& threads, const op::AdamW<T, T>& a) {
  const AdamWConstants<T> c(a);
  threads.run_chunks(a.weight.count(), 16384, [&](Index begin, Index end) {
    T *weight = a.weight.data, *first = a.first.data, *second = a.second.data;
    const T* gradient = a.gradient.data;
    for (Index i = begin; i < end; ++i) {
      const T g = gradient[i] * c.scale;
      const T m = c.beta1 * first[i] + c.rest1 * g, v = c.beta2 * second[i] + c.rest2 * g * g;
      first[i] = m;
      second[i] = v;
      weight[i] = weight[i] * c.keep - c.rate * m / (square_root(v) * c.root2 + c.epsilon);
    }
  });
}

}  // namespace parscale::cpu
