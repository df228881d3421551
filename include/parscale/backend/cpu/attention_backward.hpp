/// Gradients of attention: softmax weights come back from the kept log of their sum, tile by tile.
#pragma once

#include "attention.hpp"

namespace parscale::cpu {

/// sum over all features of d_out * out of one head: what the softmax's derivative subtracts.
template <class T>
T output_pull(const op::AttendBackward<T, T>& a, const HeadPlaces& at, Index row, Index head) {
  T total = 0;
  for (Index source = 0; source < at.sources; ++source) {
    const Index place = at.out(row, source, head);
    total += dot(a.d_out.data + place, a.out.data + place, at.dim);
  }
  return total;
}

/// Scores become weights; the weights' gradients become the scores' gradients times `scale`.
template <class T>
void softmax_backward_row(T* scores, T* d_scores, const SeenColumns& seen, T log_sum, T pull, T scale) {
  const auto part = [&](Index begin, Index end) {
    for (Index j = begin; j < end; ++j) {
      scores[j] = exponential(scores[j] - log_sum);
      d_scores[j] = scores[j] * (d_scores[j] - pull) * scale;
    }
  };
  part(0, seen.prefix);
  part(seen.lo, seen.hi);
  seen.clear_hidden(scores);
  seen.clear_hidden(d_scores);
}

/// One (stream, key/value head): all its queries in order, so that d_k and d_v add up in a fixed order.
template <class T>
class AttendBackwardStream {
 public:
  AttendBackwardStream(const op::AttendBackward<T, T>& a, const HeadPlaces& at, T* scratch)
      : a_(a), at_(at), weights_(scratch), d_scores_(scratch + query_tile * key_block) {}
  static constexpr Index scratch_size = 2 * query_tile * key_block;

  /// d_prefix_k and d_prefix_v [T,D] are added to; they may be absent.
  void run(Index stream, Index kv_head, T* d_prefix_k, T* d_prefix_v) {
    const Index d = at_.dim, w = at_.qkv_width, row = stream * at_.tokens;
    const Visible<T> keys = visible<T>(a_, at_, stream, kv_head);
    const Index prefix = keys.prefix();
    d_prefix_k_ = {d_prefix_k, prefix, d, d};
    d_prefix_v_ = {d_prefix_v, prefix, d, d};
    d_k_ = {a_.d_qkv.data + at_.key(row, kv_head), at_.tokens, d, w};
    d_v_ = {a_.d_qkv.data + at_.value(row, kv_head), at_.tokens, d, w};
    for (Index i = 0; i < at_.tokens; ++i) {
      std::fill_n(d_k_.row(i), d, T(0));
      std::fill_n(d_v_.row(i), d, T(0));
    }
    for (Index from = 0; from < at_.tokens; from += query_tile)
      for (Index h = 0; h < at_.group; ++h)
        tile(keys, stream, kv_head * at_.group + h, from, std::min(at_.tokens, from + query_tile));
  }

 private:
  void tile(const Visible<T>& keys, Index stream, Index head, Index from, Index to) {
    const Index row = stream * at_.tokens + from, count = to - from, replica = stream / at_.sequences;
    const Causal causal(a_.layout, stream % at_.sequences, keys.prefix());
    const Block<const T> q{a_.qkv.data + at_.query(row, head), count, at_.dim, at_.qkv_width};
    const Block<T> d_q{a_.d_qkv.data + at_.query(row, head), count, at_.dim, at_.qkv_width};
    const Block<const T> d_out{a_.d_out.data + at_.out(row, at_.own_source(replica), head), count, at_.dim,
                               at_.out_width};
    T pull[query_tile];
    for (Index i = 0; i < count; ++i) {
      pull[i] = output_pull(a_, at_, row + i, head);
      std::fill_n(d_q.row(i), at_.dim, T(0));
    }
    each_key_block(causal, from, to, [&](Index begin, Index end) {
      const Index width = end - begin;
      std::fill_n(weights_, count * width, T(0));
      std::fill_n(d_scores_, count * width, T(0));
      keys.each_part(begin, end, [&](Index first, Block<const T> k, Block<const T> v) {
        add_product_nt<T>(q, k, {weights_ + first, count, k.rows, width}, at_.scale<T>());
        add_product_nt<T>(d_out, v, {d_scores_ + first, count, v.rows, width}, 1);
      });
      for (Index i = 0; i < count; ++i)
        softmax_backward_row(weights_ + i * width, d_scores_ + i * width,
                             SeenColumns(causal, from + i, begin, end), a_.log_sum.row(row + i)[head],
                             pull[i], at_.scale<T>());
      keys.each_part(begin, end, [&](Index first, Block<const T> k, Block<const T>) {
        add_product<T>({d_scores_ + first, count, k.rows, width}, k, d_q, 1);
        add_key_gradients(begin + first, k.rows, {weights_ + first, count, k.rows, width},
                          {d_scores_ + first, count, k.rows, width}, q, d_out);
      });
    });
  }

  /// Gradients of the keys and values in columns [column, column + count): all prefix or all own.
  void add_key_gradients(Index column, Index count, Block<const T> weights, Block<const T> d_scores,
                         Block<const T> q, Block<const T> d_out) {
    const bool own = column >= d_prefix_k_.rows;
    const Index first = own ? column - d_prefix_k_.rows : column;
    const Block<T>&d_k = own ? d_k_ : d_prefix_k_, &d_v = own ? d_v_ : d_prefix_v_;
    if (d_k.data != nullptr) add_product_tn<T>(d_scores, q, {d_k.row(first), count, at_.dim, d_k.stride}, 1);
    if (d_v.data != nullptr)
      add_product_tn<T>(weights, d_out, {d_v.row(first), count, at_.dim, d_v.stride}, 1);
  }

  const op::AttendBackward<T, T>& a_;
  const HeadPlaces& at_;
  T *weights_, *d_scores_;
  Block<T> d_prefix_k_{}, d_prefix_v_{}, d_k_{}, d_v_{};
};

/// Gradients through the other replicas' keys and values of one position, for all replicas and heads.
template <class T>
void attend_across_backward(const op::AttendBackward<T, T>& a, const HeadPlaces& at, Index n) {
  const T scale = at.scale<T>();
  for (Index r = 0; r < at.sources; ++r)
    for (Index head = 0; head < at.heads; ++head) {
      const Index row = r * at.positions + n, kv_head = head / at.group;
      const T log_sum = a.log_sum.row(row)[head], pull = output_pull(a, at, row, head);
      const T* q = a.qkv.data + at.query(row, head);
      T* d_q = a.d_qkv.data + at.query(row, head);
      for (Index p = 0; p < at.sources; ++p) {
        if (p == r) continue;
        const Index key = at.key(p * at.positions + n, kv_head),
                    value = at.value(p * at.positions + n, kv_head);
        const T* d_out = a.d_out.data + at.out(row, p, head);
        const T weight = exponential(scale * dot(q, a.qkv.data + key, at.dim) - log_sum);
        const T d_score = weight * (dot(d_out, a.qkv.data + value, at.dim) - pull) * scale;
        add_scaled(d_q, a.qkv.data + key, d_score, at.dim);
        add_scaled(a.d_qkv.data + key, q, d_score, at.dim);
        add_scaled(a.d_qkv.data + value, d_out, weight, at.dim);
      }
    }
}

/// Sequences whose prefix gradients are kept apart at once: as many as fit into 16 MiB.
template <class T>
Index sequences_at_once(Index sequences, Index prefix_elements) {
  constexpr Index limit = Index{16} << 20;
  if (prefix_elements == 0) return sequences;
  return std::clamp<Index>(limit / (2 * prefix_elements * static_cast<Index>(sizeof(T))), 1, sequences);
}

template <class T>
void attend_backward(Threads& threads, Scratch& scratch, Index head_dim, Index sources,
                     const op::AttendBackward<T, T>& a) {
  const HeadPlaces at(a, head_dim, sources);
  if (at.positions == 0) return;
  const Index replicas = a.layout.replicas,
              prefix = std::max(a.d_prefix_k.count(), a.d_prefix_v.count());  // P*G*T*D
  const Index together = sequences_at_once<T>(at.sequences, prefix), each = prefix / (replicas * at.kv_heads);
  const Index tiles = AttendBackwardStream<T>::scratch_size;
  T* memory = scratch.take<T>(tiles * threads.count() + 2 * prefix * together);
  T *parts_k = memory + tiles * threads.count(), *parts_v = parts_k + prefix * together;
  for (Index first = 0; first < at.sequences; first += together) {
    const Index count = std::min(together, at.sequences - first);
    std::fill_n(parts_k, 2 * prefix * together, T(0));
    threads.run(replicas * count * at.kv_heads, [&](Index task, int thread) {
      const Index kv_head = task % at.kv_heads, b = task / at.kv_heads % count;
      const Index r = task / at.kv_heads / count, part = b * prefix + (r * at.kv_heads + kv_head) * each;
      AttendBackwardStream<T>(a, at, memory + thread * tiles)
          .run(r * at.sequences + first + b, kv_head, prefix > 0 ? parts_k + part : nullptr,
               prefix > 0 ? parts_v + part : nullptr);
    });
    for (Index b = 0; b < count; ++b)
      for (const auto& [total, parts] : {std::pair(a.d_prefix_k, parts_k), std::pair(a.d_prefix_v, parts_v)})
        for (Index i = 0; i < total.count(); ++i) total.data[i] += parts[b * prefix + i];
  }
  if (sources > 1)
    threads.run_chunks(at.positions, 4, [&](Index begin, Index end) {
      for (Index n = begin; n < end; ++n) attend_across_backward(a, at, n);
    });
}

}  // namespace parscale::cpu
