/// The vocabulary head with its cross-entropy: logits of a few rows at a time, never all of them.
#pragma once

#include <algorithm>
#include <cmath>

#include "linear.hpp"
#include "memory.hpp"
#include "vectors.hpp"

namespace parscale::cpu {

/// Rows of logits that are alive at once: of `rows`, as many as fit into 32 MiB, up to 512.
template <class T>
Index head_loss_rows(Index vocabulary, Index rows) {
  constexpr Index elements = (Index{32} << 20) / static_cast<Index>(sizeof(T)), most = 512;
  return std::clamp<Index>(elements / std::max<Index>(vocabulary, 1), 1, std::clamp<Index>(rows, 1, most));
}

/// The loss of one row of logits, which become its gradient when `d_scale` is not 0.
template <class T>
double cross_entropy_row(T* logits, Index vocabulary, Token target, T d_scale) {
  const T top = max_of(logits, vocabulary), at_target = logits[target];
  for (Index j = 0; j < vocabulary; ++j) logits[j] = exponential(logits[j] - top);
  const T total = sum<T>(vocabulary, [=](Index j) { return logits[j]; });
  if (d_scale != 0) {
    const T share = d_scale / total;
    for (Index j = 0; j < vocabulary; ++j) logits[j] *= share;
    logits[target] -= d_scale;
  }
  return std::log(static_cast<double>(total)) + static_cast<double>(top) - static_cast<double>(at_target);
}

template <class T>
double head_loss(Threads& threads, Scratch& scratch, Scratch& panels, const op::HeadLoss<T, T>& a) {
  const Index rows = a.x.rows(), hidden = a.x.cols(), vocabulary = a.weight.rows();
  const Index chunk = head_loss_rows<T>(vocabulary, rows);
  const Index loss_words = chunk * static_cast<Index>(sizeof(double)) / static_cast<Index>(sizeof(T));
  T* memory = scratch.take<T>(chunk * vocabulary + loss_words);
  double* losses = reinterpret_cast<double*>(memory);
  T* logits_memory = memory + loss_words;
  const T d_scale = a.d_x || a.d_weight ? static_cast<T>(a.scale) : T(0);
  double loss = 0;
  for (Index first = 0; first < rows; first += chunk) {
    const Index n = std::min(chunk, rows - first);
    const View<T> logits{logits_memory, {n, vocabulary}};
    const View<const T> x{a.x.row(first), {n, hidden}};
    linear<T>(threads, panels, {.x = x, .weight = a.weight, .out = logits});
    threads.run(n, [&](Index i, int) {
      const Token target = a.targets.data[first + i];
      losses[i] = 0;
      if (target >= 0)
        losses[i] = cross_entropy_row(logits.row(i), vocabulary, target, d_scale);
      else
        std::fill_n(logits.row(i), vocabulary, T(0));
    });
    for (Index i = 0; i < n; ++i) loss += losses[i];
    if (a.d_x)
      linear_input_gradient<T>(threads, panels,
                               {.d_out = logits, .weight = a.weight, .d_x = {a.d_x.row(first), {n, hidden}}});
    if (a.d_weight)
      linear_weight_gradient<T>(
          threads, panels,
          {.x = x, .d_out = logits, .d_weight = a.d_weight, .accumulate = a.accumulate || first > 0});
  }
  return loss * a.scale;
}

}  // namespace parscale::cpu
