/// The part of expanded attention that crosses: a query's softmax also takes the other replicas' keys at its
/// own position. Attention within the stream comes first, by any kernel; this pass adds the P - 1 further
/// terms.
#pragma once

#include "attend_across_tiles.cuh"
#include "vectors.cuh"

namespace parscale::cuda {

/// The n-th (position, key/value head, replica, what else of `inner`), the replicas of a position neighbours:
/// they read each other's rows.
struct AcrossTask {
  Index position, row;
  int kv_head, replica, inner;

  __device__ AcrossTask(const HeadPlaces& at, Index task, int inner_count)
      : inner(static_cast<int>(task % inner_count)) {
    task /= inner_count;
    replica = static_cast<int>(task % at.replicas);
    task /= at.replicas;
    kv_head = static_cast<int>(task % at.kv_heads);
    position = task / at.kv_heads;
    row = row_of(at, replica);
  }
  __device__ Index row_of(const HeadPlaces& at, int other) const { return other * at.positions + position; }
};

/// out and log_sum of the own part become those of the union; the other replicas' parts of out are written.
template <class S>
void attend_any_across(const Launch& on, const AttentionInputs<S>& in, S* out, float* log_sum) {
  const HeadPlaces at = in.at;
  const int lanes = lanes_of_head(at.dim);
  lanes_each(on, "attend_expanded", at.rows() * at.heads, lanes, [=] __device__(Index n, int lane) {
    const AcrossTask task(at, max(n, Index{0}), at.group);
    const int head = task.kv_head * at.group + task.inner, d = lane * Features::count;
    const bool used = n >= 0 && d < at.dim;
    const auto at_d = [&](Index place) { return used ? load_features(in.qkv + place + d) : Features{}; };
    const Features q = at_d(at.query(task.row, head));
    const auto score = [&](int p) {
      return in.scale * lanes_sum(q.dot(at_d(at.key(task.row_of(at, p), task.kv_head))), lanes);
    };
    const float own = log_sum[task.row * at.heads + head];
    float top = own, total = 1;
    for (int p = 0; p < at.replicas; ++p) {
      if (p == task.replica) continue;
      const float s = score(p), greatest = fmaxf(top, s);
      total = total * expf(top - greatest) + expf(s - greatest);
      top = greatest;
    }
    const float all = top + logf(total);
    for (int p = 0; p < at.replicas; ++p) {
      S* part = out + at.out(task.row, p, head) + d;
      if (p == task.replica) {
        if (used) store_features(load_features(part) * expf(own - all), part);
        continue;
      }
      const float weight = expf(score(p) - all);
      if (used) store_features(at_d(at.value(task.row_of(at, p), task.kv_head)) * weight, part);
    }
    if (n >= 0 && lane == 0) log_sum[task.row * at.heads + head] = all;
  });
}

/// Each row gathers: what its queries take from the keys of its position, and what it gets as their key. With
/// `everything` those are all gradients there are, else its own key was dealt with and the rest is added.
template <bool everything, class S>
void gather_replicas(const Launch& on, const char* operation, const HeadPlaces& at_, const S* qkv,
                     const AttentionGradients<S>& a) {
  const HeadPlaces at = at_;
  const float scale = at.scale();
  const int lanes = lanes_of_head(at.dim);
  lanes_each(on, operation, at.rows() * at.kv_heads, lanes, [=] __device__(Index n, int lane) {
    const AcrossTask task(at, max(n, Index{0}), 1);
    const int d = lane * Features::count;
    const bool used = n >= 0 && d < at.dim;
    const auto at_d = [&](const S* from, Index place) {
      return used ? load_features(from + place + d) : Features{};
    };
    const auto write = [&](Features gradient, Index place) {
      if (!used) return;
      if (!everything) gradient.add(load_features(a.d_qkv + place + d), 1);
      store_features(gradient, a.d_qkv + place + d);
    };
    const Index key = at.key(task.row, task.kv_head), value = at.value(task.row, task.kv_head);
    const Features k = at_d(qkv, key), v = at_d(qkv, value);
    Features d_k{}, d_v{};
    for (int h = 0; h < at.group; ++h) {
      const int head = task.kv_head * at.group + h;
      const Index query = at.query(task.row, head);
      const Features q = at_d(qkv, query);
      Features d_q{};
      // The weight of one query's one key, and the gradient of their product.
      const auto weights = [&](Index row, float product, float d_weight) {
        const float weight = expf(scale * product - a.log_sum[row * at.heads + head]);
        return float2{weight, weight * (d_weight - a.delta.at(at, row, head)) * scale};
      };
      const auto source = [&](int p) { return at.sources > 1 ? p : 0; };
      for (int p = 0; p < at.replicas; ++p) {
        if (!everything && p == task.replica) continue;
        const Index other = task.row_of(at, p);
        const Features other_k = at_d(qkv, at.key(other, task.kv_head));
        const Features other_v = at_d(qkv, at.value(other, task.kv_head));
        const Features d_out = at_d(a.d_out, at.out(task.row, source(p), head));
        const float2 taken =
            weights(task.row, lanes_sum(q.dot(other_k), lanes), lanes_sum(d_out.dot(other_v), lanes));
        d_q.add(other_k, taken.y);
        const Features other_q = at_d(qkv, at.query(other, head));
        const Features other_d_out = at_d(a.d_out, at.out(other, source(task.replica), head));
        const float2 given =
            weights(other, lanes_sum(other_q.dot(k), lanes), lanes_sum(other_d_out.dot(v), lanes));
        d_k.add(other_q, given.y);
        d_v.add(other_d_out, given.x);
      }
      write(d_q, query);
    }
    write(d_k, key);
    write(d_v, value);
  });
}

template <class S>
void attend_across(const Launch& on, const AttentionInputs<S>& in, S* out, float* log_sum) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    const auto tiles = [&]<int D, int P>(Int<D>, Int<P>) {
      attend_across_kernel<D, P><<<ReplicaTile<P>::blocks(in.at), ReplicaTile<P>::threads, 0, on.stream>>>(
          in.at, in.scale, in.qkv, out, log_sum);
      check(cudaGetLastError(), "attend_expanded");
    };
    if (with_replica_tiles(in.at.dim, in.at.replicas, tiles)) return;
  }
  attend_any_across(on, in, out, log_sum);
}

template <class S>
void attend_across_backward(const Launch& on, const HeadPlaces& at, const S* qkv,
                            const AttentionGradients<S>& a) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    const auto tiles = [&]<int D, int P>(Int<D>, Int<P>) {
      attend_across_backward_kernel<D, P>
          <<<ReplicaTile<P>::blocks(at), ReplicaTile<P>::threads, 0, on.stream>>>(at, at.scale(), qkv, a);
      check(cudaGetLastError(), "attend_expanded_backward");
    };
    if (with_replica_tiles(at.dim, at.replicas, tiles)) return;
  }
  gather_replicas<false>(on, "attend_expanded_backward", at, qkv, a);
}

}  // namespace parscale::cuda
