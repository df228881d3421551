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

/// Products q k become weights; the weights' gradients become those of the products.
template <class T>
void softmax_backward_row(T* scores, T* d_scores, const SeenColumns& seen, T log_sum, T pull, T scale) {
  for (const auto& [begin, end] : seen.stretches())
    for (Index j = begin; j < end; ++j) {
      scores[j] = exponential(scale * scores[j] - log_sum);
      d_scores[j] = scores[j] * (d_scores[j] - pull) * scale;
    }
}

/// One (stream, key/value head): all its queries in order, so that d_k and d_v add up in a fixed order.
template <class T>
class AttendBackwardStream {
 public:
  static constexpr Index rows = 48;  ///< rows of scores at once
  static constexpr Index score_stride = KeyBlock::columns + 16;

  /// Elements of memory that a thread needs.
  static Index scratch_size(const HeadPlaces& at) {
    return 2 * KeyBlock::columns * at.dim + 2 * rows * score_stride + KeyBlock::columns * Kernel<T>::cols;
  }

  AttendBackwardStream(const op::AttendBackward<T, T>& a, const HeadPlaces& at, T* scratch)
      : a_(a),
        at_(at),
        keys_(scratch),
        values_(keys_ + KeyBlock::columns * at.dim),
        weights_{values_ + KeyBlock::columns * at.dim, score_stride},
        d_scores_{weights_.data + rows * score_stride, score_stride},
        panel_(d_scores_.data + rows * score_stride) {}

  /// d_prefix_k and d_prefix_v [T,D] are added to; they may be absent.
  void run(Index stream, Index kv_head, T* d_prefix_k, T* d_prefix_v) {
    const Index row = stream * at_.tokens;
    const Visible<T> seen = visible<T>(a_, at_, stream, kv_head);
    const Causal causal(a_.layout, stream % at_.sequences);
    d_prefix_k_ = {d_prefix_k, at_.dim};
    d_prefix_v_ = {d_prefix_v, at_.dim};
    d_k_ = {a_.d_qkv.data + at_.key(row, kv_head), at_.qkv_width};
    d_v_ = {a_.d_qkv.data + at_.value(row, kv_head), at_.qkv_width};
    for (Index i = 0; i < at_.tokens; ++i) {
      std::fill_n(a_.d_qkv.data + at_.query(row + i, kv_head * at_.group), at_.group * at_.dim, T(0));
      std::fill_n(d_k_.data + i * d_k_.stride, at_.dim, T(0));
      std::fill_n(d_v_.data + i * d_v_.stride, at_.dim, T(0));
    }
    each_key_block<T>(seen.prefix_k.rows, 0, at_.tokens, [&](const KeyBlock& block) {
      pack_block(block, seen.prefix_k, seen.own_k, keys_);
      pack_block(block, seen.prefix_v, seen.own_v, values_);
      const Index blind =
          block.prefix() > 0 ? 0 : block.own_begin / rows * rows;  // queries before all its keys
      for (Index from = blind; from < at_.tokens; from += rows)
        for (Index h = 0; h < at_.group; ++h)
          tile(block, causal, seen, row, kv_head * at_.group + h, from, std::min(at_.tokens, from + rows));
    });
  }

 private:
  /// One head's queries [from, to) and one block of keys.
  void tile(const KeyBlock& block, const Causal& causal, const Visible<T>& seen, Index stream_row, Index head,
            Index from, Index to) {
    const Index own = std::clamp(causal.end(to - 1) - block.own_begin, Index{0}, block.own());
    const Index first = std::min(own, std::max(Index{0}, causal.begin(from, to) - block.own_begin));
    const Index columns = own > first ? block.own_column + own : block.prefix(), m = to - from;
    if (columns == 0) return;
    const Index row = stream_row + from, replica = row / at_.positions;
    const At<const T> q{a_.qkv.data + at_.query(row, head), at_.qkv_width};
    const At<const T> d_out{a_.d_out.data + at_.out(row, at_.own_source(replica), head), at_.out_width};
    score_block<T>(m, columns, at_.dim, q, keys_, weights_);
    score_block<T>(m, columns, at_.dim, d_out, values_, d_scores_);
    for (Index i = 0; i < m; ++i) {
      const SeenColumns seen_columns(block, causal, from + i);
      T *weights = weights_.data + i * score_stride, *d_scores = d_scores_.data + i * score_stride;
      softmax_backward_row(weights, d_scores, seen_columns, a_.log_sum.row(row + i)[head],
                           output_pull(a_, at_, row + i, head), at_.scale<T>());
      seen_columns.clear_hidden(weights, columns);
      seen_columns.clear_hidden(d_scores, columns);
    }
    const At<T> d_q{a_.d_qkv.data + at_.query(row, head), at_.qkv_width};
    add_gradients(m, block.prefix(), 0, seen.prefix_k, block.prefix_begin, q, d_out, d_q, d_prefix_k_,
                  d_prefix_v_);
    add_gradients(m, own - first, block.own_column + first, seen.own_k, block.own_begin + first, q, d_out,
                  d_q, d_k_, d_v_);
  }

  /// What `count` keys, whose scores begin at `column`, give to the queries, and the queries to them.
  void add_gradients(Index m, Index count, Index column, const Block<const T>& keys, Index key, At<const T> q,
                     At<const T> d_out, At<T> d_q, At<T> d_k, At<T> d_v) {
    if (count == 0) return;
    const At<const T> weights{weights_.data + column, score_stride},
        d_scores{d_scores_.data + column, score_stride};
    add_product<Left::by_rows, T>(m, at_.dim, count, d_scores, {keys.row(key), keys.stride}, d_q, panel_);
    if (d_k.data != nullptr)
      add_product<Left::by_columns, T>(count, at_.dim, m, d_scores, q,
                                       {d_k.data + key * d_k.stride, d_k.stride}, panel_);
    if (d_v.data != nullptr)
      add_product<Left::by_columns, T>(count, at_.dim, m, weights, d_out,
                                       {d_v.data + key * d_v.stride, d_v.stride}, panel_);
  }

  const op::AttendBackward<T, T>& a_;
  const HeadPlaces& at_;
  T *keys_, *values_;
  At<T> weights_, d_scores_;
  T* panel_;
  At<T> d_prefix_k_{}, d_prefix_v_{}, d_k_{}, d_v_{};
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

/// Elements of scratch memory that the backward takes.
template <class T>
Index attend_backward_scratch(const HeadPlaces& at, Index prefix_elements, int threads) {
  return threads * AttendBackwardStream<T>::scratch_size(at) +
         2 * prefix_elements * sequences_at_once<T>(at.sequences, prefix_elements);
}

/// Prefix gradients of some sequences, kept apart until they are added up in order. Absent ones stay absent.
template <class T>
class PrefixParts {
 public:
  PrefixParts(Out<T> total, Index sequences, T* memory)
      : total_(total), sequences_(total ? sequences : 0), parts_(memory) {}

  Index size() const { return sequences_ * total_.count(); }
  void clear() { std::fill_n(parts_, size(), T(0)); }
  /// One sequence's part for one (replica, key/value head), counted together; [T,D].
  T* part(Index sequence, Index head, Index heads) const {
    return sequences_ == 0 ? nullptr : parts_ + sequence * total_.count() + head * (total_.count() / heads);
  }
  void add_up(bool accumulate) const {
    if (!accumulate && sequences_ > 0) std::fill_n(total_.data, total_.count(), T(0));
    for (Index b = 0; b < sequences_; ++b)
      for (Index i = 0; i < total_.count(); ++i) total_.data[i] += parts_[b * total_.count() + i];
  }

 private:
  Out<T> total_;
  Index sequences_;
  T* parts_;
};

template <class T>
void attend_backward(Threads& threads, Scratch& scratch, Index head_dim, Index sources,
                     const op::AttendBackward<T, T>& a) {
  const HeadPlaces at(a.layout, a.heads, a.kv_heads, head_dim, sources);
  if (at.positions == 0) return;
  const Index heads = a.layout.replicas * at.kv_heads;
  const Index together = sequences_at_once<T>(at.sequences, a.prefix_k.count());
  const Index each = AttendBackwardStream<T>::scratch_size(at), partials = together * a.prefix_k.count();
  T* memory = scratch.take<T>(attend_backward_scratch<T>(at, a.prefix_k.count(), threads.count()));
  PrefixParts<T> prefix_k(a.d_prefix_k, together, memory + each * threads.count());
  PrefixParts<T> prefix_v(a.d_prefix_v, together, memory + each * threads.count() + partials);
  for (Index first = 0; first < at.sequences; first += together) {
    const Index count = std::min(together, at.sequences - first);
    prefix_k.clear();
    prefix_v.clear();
    threads.run(heads * count, [&](Index task, int thread) {
      const Index b = task % count,
                  head = task / count;  // (replica, key/value head), counted together
      AttendBackwardStream<T>(a, at, memory + thread * each)
          .run(head / at.kv_heads * at.sequences + first + b, head % at.kv_heads,
               prefix_k.part(b, head, heads), prefix_v.part(b, head, heads));
    });
    prefix_k.add_up(a.accumulate || first > 0);
    prefix_v.add_up(a.accumulate || first > 0);
  }
  if (sources > 1)
    threads.run_chunks(at.positions, 4, [&](Index begin, Index end) {
      for (Index n = begin; n < end; ++n) attend_across_backward(a, at, n);
    });
}

}  // namespace parscale::cpu
