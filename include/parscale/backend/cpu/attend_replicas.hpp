/// The `sublayer` kind: the P replicas of one position attend to each other. One task is a few positions.
#pragma once

#include "attention_places.hpp"
#include "merge.hpp"

namespace parscale::cpu {

/// Softmax weights of one head: row r is what replica r takes of each replica.
template <int P, class T, class A>
void replica_weights(const A& a, const HeadPlaces& at, Index n, Index head, T (&weights)[P][P]) {
  for (int r = 0; r < P; ++r) {
    const T* q = a.qkv.data + at.query(r * at.positions + n, head);
    for (int p = 0; p < P; ++p)
      weights[r][p] =
          at.scale<T>() * dot(q, a.qkv.data + at.key(p * at.positions + n, head / at.group), at.dim);
    softmax(weights[r], weights[r], P);
  }
}

template <int P, class T>
void attend_replicas(Threads& threads, Index head_dim, const op::AttendReplicas<T>& a) {
  const HeadPlaces at(a.layout, a.heads, a.kv_heads, head_dim, 1);
  threads.run_chunks(at.positions, 4, [&](Index begin, Index end) {
    T weights[P][P];
    for (Index n = begin; n < end; ++n)
      for (Index head = 0; head < at.heads; ++head) {
        replica_weights<P>(a, at, n, head, weights);
        for (int r = 0; r < P; ++r) {
          T* out = a.out.data + at.out(r * at.positions + n, 0, head);
          std::fill_n(out, at.dim, T(0));
          for (int p = 0; p < P; ++p)
            add_scaled(out, a.qkv.data + at.value(p * at.positions + n, head / at.group), weights[r][p],
                       at.dim);
        }
      }
  });
}

/// One head of one position; d_qkv's keys and values are added to.
template <int P, class T>
void attend_replicas_backward_head(const op::AttendReplicasBackward<T>& a, const HeadPlaces& at, Index n,
                                   Index head) {
  const Index kv_head = head / at.group;
  T weights[P][P];
  replica_weights<P>(a, at, n, head, weights);
  for (int r = 0; r < P; ++r) {
    const Index row = r * at.positions + n;
    const T *d_out = a.d_out.data + at.out(row, 0, head), *q = a.qkv.data + at.query(row, head);
    T *d_q = a.d_qkv.data + at.query(row, head), d_weights[P], pull = 0;
    std::fill_n(d_q, at.dim, T(0));
    for (int p = 0; p < P; ++p) {
      const Index value = at.value(p * at.positions + n, kv_head);
      d_weights[p] = dot(d_out, a.qkv.data + value, at.dim);
      pull += d_weights[p] * weights[r][p];
      add_scaled(a.d_qkv.data + value, d_out, weights[r][p], at.dim);
    }
    for (int p = 0; p < P; ++p) {
      const Index key = at.key(p * at.positions + n, kv_head);
      const T d_score = weights[r][p] * (d_weights[p] - pull) * at.scale<T>();
      add_scaled(d_q, a.qkv.data + key, d_score, at.dim);
      add_scaled(a.d_qkv.data + key, q, d_score, at.dim);
    }
  }
}

template <int P, class T>
void attend_replicas_backward(Threads& threads, Index head_dim, const op::AttendReplicasBackward<T>& a) {
  const HeadPlaces at(a.layout, a.heads, a.kv_heads, head_dim, 1);
  threads.run_chunks(at.positions, 4, [&](Index begin, Index end) {
    for (Index n = begin; n < end; ++n) {
      for (int r = 0; r < P; ++r)
        std::fill_n(a.d_qkv.data + at.key(r * at.positions + n, 0), 2 * at.kv_heads * at.dim, T(0));
      for (Index head = 0; head < at.heads; ++head) attend_replicas_backward_head<P>(a, at, n, head);
    }
  });
}

}  // namespace parscale::cpu
