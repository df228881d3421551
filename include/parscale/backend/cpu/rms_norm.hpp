/// Root mean square normalisation, forward and backward.
#pragma once

#include <algorithm>
#include <cmath>

#include "../backend.hpp"
#include "memory.hpp"
#include "threads.hpp"
#include "vectors.hpp"

namespace parscale::cpu {

/// Where row `row` of [M,H] lies in an interleaved [N,H,P] tensor; feature j is `step` * j further.
struct Interleaved {
  Index positions, hidden, step;

  Interleaved(Index rows, Index columns, Index interleave)
      : positions(rows / interleave), hidden(columns), step(interleave) {}
  Index first(Index row) const { return row % positions * hidden * step + row / positions; }
};

template <class T>
void rms_norm(Threads& threads, const op::RmsNorm<T, T>& a) {
  const Index hidden = a.x.cols();
  const Interleaved at(a.x.rows(), hidden, a.interleave);
  threads.run_chunks(a.x.rows(), std::max<Index>(1, 16384 / hidden), [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const T *x = a.x.row(row), *gain = a.gain.data;
      T* out = a.out.data + at.first(row);
      const T r = 1 / std::sqrt(dot(x, x, hidden) / static_cast<T>(hidden) + static_cast<T>(a.eps));
      a.rstd.data[row] = r;
      for (Index j = 0; j < hidden; ++j) out[j * at.step] = gain[j] * (x[j] * r);
    }
  });
}

/// One row of the backward: d_x, d_gain added to, and the normalised row where it is asked for.
template <class T>
void rms_norm_backward_row(const op::RmsNormBackward<T, T>& a, const Interleaved& at, Index row, T* d_gain) {
  const Index hidden = at.hidden, step = at.step;
  const T *x = a.x.row(row), *gain = a.gain.data, *d_out = a.d_out.data + at.first(row), r = a.rstd.data[row];
  T* d_x = a.d_x.row(row);
  const T d_rstd = sum<T>(hidden, [=](Index j) { return d_out[j * step] * gain[j] * x[j]; });
  const T pull = r * r * r * d_rstd / static_cast<T>(hidden);
  if (d_gain != nullptr)
    for (Index j = 0; j < hidden; ++j) d_gain[j] += d_out[j * step] * (x[j] * r);
  if (a.d_residual) {
    const T* d_residual = a.d_residual.row(row);
    for (Index j = 0; j < hidden; ++j)
      d_x[j] = d_residual[j] + (r * (d_out[j * step] * gain[j]) - pull * x[j]);
  } else {
    for (Index j = 0; j < hidden; ++j) d_x[j] = r * (d_out[j * step] * gain[j]) - pull * x[j];
  }
  if (!a.normed) return;
  T* normed = a.normed.row(row);
  for (Index j = 0; j < hidden; ++j) normed[j] = gain[j] * (x[j] * r);
}

/// A fixed number of row chunks, each with its own d_gain; these are added up in their order.
template <class T>
void rms_norm_backward(Threads& threads, Scratch& scratch, const op::RmsNormBackward<T, T>& a) {
  const Index rows = a.x.rows(), hidden = a.x.cols(), chunks = std::min<Index>(32, std::max<Index>(rows, 1));
  const Index grain = (rows + chunks - 1) / chunks;
  const Interleaved at(rows, hidden, a.interleave);
  T* parts = a.d_gain ? scratch.take<T>(chunks * hidden) : nullptr;
  threads.run(chunks, [&](Index chunk, int) {
    T* part = parts != nullptr ? parts + chunk * hidden : nullptr;
    if (part != nullptr) std::fill(part, part + hidden, T(0));
    for (Index row = chunk * grain; row < std::min(rows, (chunk + 1) * grain); ++row)
      rms_norm_backward_row(a, at, row, part);
  });
  if (parts == nullptr) return;
  if (!a.accumulate) std::fill_n(a.d_gain.data, hidden, T(0));
  for (Index chunk = 0; chunk < chunks; ++chunk)
    for (Index j = 0; j < hidden; ++j) a.d_gain.data[j] += parts[chunk * hidden + j];
}

}  // namespace parscale::cpu
