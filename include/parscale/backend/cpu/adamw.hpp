/// AdamW: one pass over weight, gradient and both moments.
#pragma once

#include <cmath>

#include "../backend.hpp"
#include "threads.hpp"

namespace parscale::cpu {

template <class T>
void adamw(Threads& threads, const op::AdamW<T>& a) {
  const double step = static_cast<double>(a.step);
  const double correction1 = 1 - std::pow(a.beta1, step), correction2 = 1 - std::pow(a.beta2, step);
  const T scale = static_cast<T>(a.gradient_scale), beta1 = static_cast<T>(a.beta1),
          beta2 = static_cast<T>(a.beta2), rest1 = static_cast<T>(1 - a.beta1),
          rest2 = static_cast<T>(1 - a.beta2), epsilon = static_cast<T>(a.epsilon),
          keep = static_cast<T>(1 - a.learning_rate * a.weight_decay),
          rate = static_cast<T>(a.learning_rate / correction1),
          root2 = static_cast<T>(1 / std::sqrt(correction2));
  threads.run_chunks(a.weight.count(), 16384, [&](Index begin, Index end) {
    T *weight = a.weight.data, *first = a.first.data, *second = a.second.data;
    const T* gradient = a.gradient.data;
    for (Index i = begin; i < end; ++i) {
      const T g = gradient[i] * scale;
      const T m = beta1 * first[i] + rest1 * g, v = beta2 * second[i] + rest2 * g * g;
      first[i] = m;
      second[i] = v;
      weight[i] = weight[i] * keep - rate * m / (std::sqrt(v) * root2 + epsilon);
    }
  });
}

}  // namespace parscale::cpu
