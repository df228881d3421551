/// The `sublayer` kind: the P replicas of one position attend to each other. On the tensor cores where their
/// tiles fit, else by lanes that share a head's features.
#pragma once

#include "attend_across.cuh"
#include "attend_replicas_tiles.cuh"

namespace parscale::cuda {

/// Any number of replicas: keys and values are read again for every query, softmax runs along.
template <class S>
void attend_any_replicas(const Launch& on, int head_dim, const op::AttendReplicas<S>& a) {
  const HeadPlaces at(a.layout, a.heads, a.kv_heads, head_dim, 1);
  const int lanes = lanes_of_head(head_dim);
  const float scale = at.scale();
  const S* qkv = a.qkv.data;
  S* out = a.out.data;
  lanes_each(on, "attend_replicas", at.rows() * at.heads, lanes, [=] __device__(Index n, int lane) {
    const AcrossTask task(at, max(n, Index{0}), at.group);
    const int head = task.kv_head * at.group + task.inner, d = lane * Features::count;
    const bool used = n >= 0 && d < at.dim;
    const auto at_d = [&](Index place) { return used ? load_features(qkv + place + d) : Features{}; };
    const Features q = at_d(at.query(task.row, head));
    Features sum{};
    float top = -INFINITY, total = 0;
    for (int p = 0; p < at.replicas; ++p) {
      const Index other = task.row_of(at, p);
      const float s = scale * lanes_sum(q.dot(at_d(at.key(other, task.kv_head))), lanes);
      const float greatest = fmaxf(top, s), shrink = expf(top - greatest), weight = expf(s - greatest);
      sum = sum * shrink;
      sum.add(at_d(at.value(other, task.kv_head)), weight);
      total = total * shrink + weight;
      top = greatest;
    }
    if (used) store_features(sum * (1 / total), out + at.out(task.row, 0, head) + d);
  });
}

/// The log of the softmax's denominator and the pull of every query, for the backward of any P.
template <class S>
void replica_sums(const Launch& on, const HeadPlaces& at, const S* qkv, const S* d_out, float* log_sum,
                  Deltas pull) {
  const int lanes = lanes_of_head(at.dim);
  const float scale = at.scale();
  lanes_each(on, "attend_replicas_backward", at.rows() * at.heads, lanes, [=] __device__(Index n, int lane) {
    const AcrossTask task(at, max(n, Index{0}), at.group);
    const int head = task.kv_head * at.group + task.inner, d = lane * Features::count;
    const bool used = n >= 0 && d < at.dim;
    const auto at_d = [&](const S* from, Index place) {
      return used ? load_features(from + place + d) : Features{};
    };
    const Features q = at_d(qkv, at.query(task.row, head)), d_o = at_d(d_out, at.out(task.row, 0, head));
    float top = -INFINITY, total = 0, pulled = 0;
    for (int p = 0; p < at.replicas; ++p) {
      const Index other = task.row_of(at, p);
      const float s = scale * lanes_sum(q.dot(at_d(qkv, at.key(other, task.kv_head))), lanes);
      const float d_weight = lanes_sum(d_o.dot(at_d(qkv, at.value(other, task.kv_head))), lanes);
      const float greatest = fmaxf(top, s), shrink = expf(top - greatest), weight = expf(s - greatest);
      total = total * shrink + weight;
      pulled = pulled * shrink + weight * d_weight;
      top = greatest;
    }
    if (n < 0 || lane != 0) return;
    log_sum[task.row * at.heads + head] = top + logf(total);
    pull.at(at, task.row, head) = pulled / total;
  });
}

/// Elements of float scratch memory that attend_replicas_backward takes.
inline Index attend_replicas_backward_scratch(const Layout& layout, Index heads) {
  return 2 * layout.rows() * heads;
}

/// Any number of replicas: each row gathers, as the crossing part of expanded attention does, its own key
/// too.
template <class S>
void attend_any_replicas_backward(const Launch& on, int head_dim, const op::AttendReplicasBackward<S>& a) {
  const HeadPlaces at(a.layout, a.heads, a.kv_heads, head_dim, 1);
  float* log_sum = on.scratch.take<float>(attend_replicas_backward_scratch(a.layout, a.heads));
  const Deltas pull{log_sum + at.rows() * at.heads, at.tokens};
  replica_sums(on, at, a.qkv.data, a.d_out.data, log_sum, pull);
  gather_replicas<true>(on, "attend_replicas_backward", at, a.qkv.data,
                        {a.d_out.data, log_sum, pull, a.d_qkv.data});
}

template <class S>
void attend_replicas(const Launch& on, int head_dim, int P, const op::AttendReplicas<S>& a) {
  if (a.layout.positions() == 0) return;
  if constexpr (std::is_same_v<S, BFloat16>) {
    const HeadPlaces at(a.layout, a.heads, a.kv_heads, head_dim, 1);
    const auto tiles = [&]<int D, int N>(Int<D>, Int<N>) {
      attend_replicas_kernel<D, N><<<ReplicaTile<N>::blocks(at), ReplicaTile<N>::threads, 0, on.stream>>>(
          at, at.scale(), a.qkv.data, a.out.data);
      check(cudaGetLastError(), "attend_replicas");
    };
    if (with_replica_tiles(head_dim, P, tiles)) return;
  }
  attend_any_replicas(on, head_dim, a);
}

template <class S>
void attend_replicas_backward(const Launch& on, int head_dim, int P, const op::AttendReplicasBackward<S>& a) {
  if (a.layout.positions() == 0) return;
  if constexpr (std::is_same_v<S, BFloat16>) {
    const HeadPlaces at(a.layout, a.heads, a.kv_heads, head_dim, 1);
    const auto tiles = [&]<int D, int N>(Int<D>, Int<N>) {
      attend_replicas_backward_kernel<D, N>
          <<<ReplicaTile<N>::blocks(at), ReplicaTile<N>::threads, 0, on.stream>>>(at, at.scale(), a.qkv.data,
                                                                                  a.d_out.data, a.d_qkv.data);
      check(cudaGetLastError(), "attend_replicas_backward");
    };
    if (with_replica_tiles(head_dim, P, tiles)) return;
  }
  attend_any_replicas_backward(on, head_dim, a);
}

}  // namespace parscale::cuda
