/// Token and replica embeddings, forward and backward.
#pragma once

#include <algorithm>

#include "../backend.hpp"
#include "pointwise.hpp"
#include "threads.hpp"

namespace parscale::cpu {

template <class T>
void embed(Threads& threads, const op::Embed<T>& a) {
  const Index hidden = a.table.cols(), ids = a.ids.count();
  const Index rows = a.out.rows(),
              rows_per_replica = a.replica_embedding ? rows / a.replica_embedding.rows() : 1;
  threads.run_chunks(rows, std::max<Index>(1, 65536 / hidden), [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const T* token = a.table.row(a.ids.data[row % ids]);
      T* out = a.out.row(row);
      std::copy(token, token + hidden, out);
      if (!a.replica_embedding) continue;
      const T* replica = a.replica_embedding.row(row / rows_per_replica);
      for (Index j = 0; j < hidden; ++j) out[j] += replica[j];
    }
  });
}

/// Each task owns some columns of the tables and visits the rows in their order.
template <class T>
void embed_backward(Threads& threads, const op::EmbedBackward<T, T>& a) {
  if (!a.accumulate) {
    if (a.d_table) fill_zero(threads, a.d_table);
    if (a.d_replica_embedding) fill_zero(threads, a.d_replica_embedding);
  }
  const Index ids = a.ids.count(), rows = a.d_out.rows();
  const Index rows_per_replica = a.d_replica_embedding ? rows / a.d_replica_embedding.rows() : 1;
  threads.run_chunks(a.d_out.cols(), 64, [&](Index begin, Index end) {
    for (Index row = 0; row < rows; ++row) {
      const T* d_out = a.d_out.row(row);
      if (a.d_table) {
        T* d_token = a.d_table.row(a.ids.data[row % ids]);
        for (Index j = begin; j < end; ++j) d_token[j] += d_out[j];
      }
      if (a.d_replica_embedding) {
        T* d_replica = a.d_replica_embedding.row(row / rows_per_replica);
        for (Index j = begin; j < end; ++j) d_replica[j] += d_out[j];
      }
    }
  });
}

template <class T>
void sum_replicas(Threads& threads, const op::SumReplicas<T>& a) {
  const Index cols = a.x.cols(), positions = a.layout.positions();
  threads.run_chunks(positions, std::max<Index>(1, 65536 / std::max<Index>(cols, 1)),
                     [&](Index begin, Index end) {
                       for (Index row = positions + begin; row < a.layout.rows(); row += positions)
                         for (Index i = 0; i < (end - begin) * cols; ++i)
                           a.x.row(begin)[i] += a.x.row(row)[i];
                     });
}

}  // namespace parscale::cpu
