/// Rotary position embedding (half-split), and the table of its cosines and sines.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../backend.hpp"
#include "threads.hpp"

namespace parscale::cpu {

/// cos and sin of position * theta^(-2d/D), computed in float64. It grows with the positions asked for.
template <class T>
class RotaryTable {
 public:
  /// Makes the rows 0 ... positions - 1 available.
  void require(Index positions, Index head_dim, double theta) {
    if (head_dim != head_dim_ || theta != theta_) {
      values_.clear();
      head_dim_ = head_dim;
      theta_ = theta;
    }
    const Index known = static_cast<Index>(values_.size()) / head_dim;
    if (positions <= known) return;
    values_.resize(static_cast<std::size_t>(positions * head_dim));
    for (Index d = 0; d < head_dim / 2; ++d) {
      const double frequency = std::pow(theta, -2.0 * static_cast<double>(d) / static_cast<double>(head_dim));
      for (Index position = known; position < positions; ++position) {
        const double angle = static_cast<double>(position) * frequency;
        T* row = values_.data() + position * head_dim;
        row[d] = static_cast<T>(std::cos(angle));
        row[head_dim / 2 + d] = static_cast<T>(std::sin(angle));
      }
    }
  }
  /// [D]: D/2 cosines, D/2 sines.
  const T* row(Index position) const { return values_.data() + position * head_dim_; }

 private:
  std::vector<T> values_;
  Index head_dim_ = 0;
  double theta_ = 0;
};

/// The position that turns a row.
template <class T>
Index rotary_position(const op::Rotate<T>& a, Index row) {
  const Layout& layout = a.layout;
  const Index n = row % layout.positions();
  if (a.by_replica) return row / layout.positions();
  const Index past = layout.past ? layout.past.data[n / layout.tokens] : 0;
  return past + n % layout.tokens - (layout.starts ? layout.starts.data[n] : 0);
}

template <class T>
void rotate(Threads& threads, RotaryTable<T>& table, Index head_dim, const op::Rotate<T>& a) {
  const Layout& layout = a.layout;
  Index positions = a.by_replica ? layout.replicas : layout.tokens;
  if (!a.by_replica && layout.past)
    positions += *std::max_element(layout.past.data, layout.past.data + layout.sequences);
  table.require(positions, head_dim, a.theta);
  const Index half = head_dim / 2;
  const T direction = a.inverse ? T(-1) : T(1);
  threads.run_chunks(layout.rows(), std::max<Index>(1, 16384 / (a.heads * head_dim + 1)),
                     [&](Index begin, Index end) {
                       for (Index row = begin; row < end; ++row) {
                         const T *cosine = table.row(rotary_position(a, row)), *sine = cosine + half;
                         for (Index head = 0; head < a.heads; ++head) {
                           T *low = a.x.row(row) + head * head_dim, *high = low + half;
                           for (Index d = 0; d < half; ++d) {
                             const T u = low[d], v = high[d], s = direction * sine[d];
                             low[d] = u * cosine[d] - v * s;
                             high[d] = v * cosine[d] + u * s;
                           }
                         }
                       }
                     });
}

}  // namespace parscale::cpu
