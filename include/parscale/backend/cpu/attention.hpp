/// Causal attention over a prefix and a stream's own keys, in tiles of queries and blocks of keys. Softmax
/// is kept as a running maximum and a running sum, so no more than one tile of scores exists a thread.
#pragma once

#include <limits>

#include "attention_places.hpp"
#include "few_rows_product.hpp"
#include "memory.hpp"
#include "threads.hpp"
#include "vectors.hpp"

namespace parscale::cpu {

/// Softmax over keys that arrive in pieces: the greatest score so far and the sum of e^(score - top).
template <class T>
struct RunningSoftmax {
  T top = -std::numeric_limits<T>::infinity();
  T total = 0;

  /// Takes a new maximum in; what was summed before must be multiplied by the result.
  T raise(T candidate) {
    if (candidate <= top) return 1;
    const T shrink = total > 0 ? exponential(top - candidate) : T(0);
    top = candidate;
    total *= shrink;
    return shrink;
  }
};

/// Products q k of one token in one block become e^(scale q k - top); the output row shrinks accordingly.
template <class T>
void softmax_block(T* scores, const SeenColumns& seen, T scale, RunningSoftmax<T>& state, T* out, Index dim) {
  if (seen.none()) return;
  T top = -std::numeric_limits<T>::infinity();
  for (const auto& [begin, end] : seen.stretches())
    if (end > begin) top = std::max(top, max_of(scores + begin, end - begin));
  const T shrink = state.raise(scale * top);
  if (shrink != 1)
    for (Index d = 0; d < dim; ++d) out[d] *= shrink;
  for (const auto& [begin, end] : seen.stretches()) {
    T* s = scores + begin;
    const Index n = end - begin;
    const T greatest = state.top;
    for (Index j = 0; j < n; ++j) s[j] = exponential(scale * s[j] - greatest);
    state.total += sum<T>(n, [s](Index j) { return s[j]; });
  }
}

/// Scores of one query with the other replicas' keys of its position; its own stays untouched.
template <class T, class A>
void replica_scores(const A& a, const HeadPlaces& at, Index row, Index head, T* scores) {
  const Index n = row % at.positions, replica = row / at.positions;
  for (Index p = 0; p < at.sources; ++p)
    if (p != replica)
      scores[p] = at.scale<T>() * dot(a.qkv.data + at.query(row, head),
                                      a.qkv.data + at.key(p * at.positions + n, head / at.group), at.dim);
}

/// The queries [from, to) of one stream, for all heads that share a key/value head.
template <class T>
class AttendTile {
 public:
  static constexpr Index most_queries = 128,
                         rows = 48;  ///< rows of scores at once
  static constexpr Index score_stride = KeyBlock::columns + 16;

  /// Elements of memory that a thread needs.
  static Index scratch_size(const HeadPlaces& at) {
    return KeyBlock::columns * at.dim + score_rows(at) * score_stride + KeyBlock::columns * Kernel<T>::cols +
           at.group * most_queries * (2 + at.sources);
  }

  AttendTile(const op::Attend<T, T>& a, const HeadPlaces& at, T* scratch)
      : a_(a),
        at_(at),
        keys_(scratch),
        scores_(keys_ + KeyBlock::columns * at.dim),
        panel_(scores_ + score_rows(at) * score_stride),
        states_(reinterpret_cast<RunningSoftmax<T>*>(panel_ + KeyBlock::columns * Kernel<T>::cols)),
        cross_(reinterpret_cast<T*>(states_ + at.group * most_queries)) {}

  void run(Index stream, Index kv_head, Index from, Index to) {
    stream_ = stream;
    kv_head_ = kv_head;
    const Visible<T> seen = visible_with_cache(a_, at_, stream, kv_head);
    const Causal causal(a_.layout, stream % at_.sequences);
    each_query(from, to, [&](Index row, Index head, Index i) { begin(row, head, i); });
    each_key_block<T>(
        seen.prefix_k.rows, causal.begin(from, to), causal.end(to - 1), [&](const KeyBlock& block) {
          const bool alone = to - from == 1;
          if (!alone) pack_block(block, seen.prefix_k, seen.own_k, keys_);
          for (Index h = 0; h < (alone ? 1 : at_.group); ++h)
            for (Index first = from; first < to; first += rows)
              add_block(block, causal, seen,
                        alone ? heads_of(from) : tokens_of(h, from, first, std::min(to, first + rows)));
        });
    each_query(from, to, [&](Index row, Index head, Index i) { finish(row, head, i); });
  }

 private:
  static Index score_rows(const HeadPlaces& at) { return std::max(rows, at.group); }

  /// f(row, head, number of the query within this tile)
  template <class F>
  void each_query(Index from, Index to, F f) {
    for (Index h = 0; h < at_.group; ++h)
      for (Index i = from; i < to; ++i)
        f(stream_ * at_.tokens + i, kv_head_ * at_.group + h, h * most_queries + i - from);
  }

  T* own_out(Index row, Index head) const {
    return a_.out.data + at_.out(row, at_.own_source(row / at_.positions), head);
  }

  void begin(Index row, Index head, Index i) {
    RunningSoftmax<T>& state = states_[i] = {};
    std::fill_n(own_out(row, head), at_.dim, T(0));
    if (at_.sources == 1) return;
    T* scores = cross_ + i * at_.sources;
    const Index replica = row / at_.positions;
    replica_scores(a_, at_, row, head, scores);
    for (Index p = 0; p < at_.sources; ++p)
      if (p != replica) state.raise(scores[p]);
    for (Index p = 0; p < at_.sources; ++p)
      if (p != replica) state.total += exponential(scores[p] - state.top);
  }

  /// Queries that are handled together: tokens of one head or, when there is one token only, all heads.
  struct Queries {
    Index count, first_token, token_step;
    At<const T> q;
    At<T> out;
    RunningSoftmax<T>* states;
    Index state_step;

    Index token(Index i) const { return first_token + i * token_step; }
  };
  Queries tokens_of(Index h, Index from, Index first, Index to) const {
    const Index row = stream_ * at_.tokens + first, head = kv_head_ * at_.group + h;
    const At<const T> q{a_.qkv.data + at_.query(row, head), at_.qkv_width};
    return {to - first,
            first,
            1,
            q,
            {own_out(row, head), at_.out_width},
            states_ + h * most_queries + first - from,
            1};
  }
  Queries heads_of(Index token) const {
    const Index row = stream_ * at_.tokens + token, head = kv_head_ * at_.group;
    const At<const T> q{a_.qkv.data + at_.query(row, head), at_.dim};
    return {at_.group, token, 0, q, {own_out(row, head), at_.dim}, states_, most_queries};
  }

  void add_block(const KeyBlock& block, const Causal& causal, const Visible<T>& seen,
                 const Queries& queries) {
    const Index m = queries.count;
    const Index own = std::clamp(causal.end(queries.token(m - 1)) - block.own_begin, Index{0}, block.own());
    const Index columns = own > 0 ? block.own_column + own : block.prefix();
    if (columns == 0) return;
    const At<T> scores{scores_, score_stride};
    if (queries.token_step == 0)
      score_heads(block, seen, queries, scores);
    else
      score_block<T>(m, columns, at_.dim, queries.q, keys_, scores);
    for (Index i = 0; i < m; ++i) {
      const SeenColumns seen_columns(block, causal, queries.token(i));
      T* row_scores = scores.data + i * scores.stride;
      softmax_block(row_scores, seen_columns, at_.scale<T>(), queries.states[i * queries.state_step],
                    queries.out.data + i * queries.out.stride, at_.dim);
      seen_columns.clear_hidden(row_scores, columns);
    }
    for (const auto& part : block.parts(seen.prefix_v, seen.own_v, own))
      add_product<Left::by_rows, T>(m, at_.dim, part.rows.rows, {scores.data + part.column, scores.stride},
                                    {part.rows.data, part.rows.stride}, queries.out, panel_);
  }

  /// One token's scores: every key is read once, for all heads.
  void score_heads(const KeyBlock& block, const Visible<T>& seen, const Queries& queries,
                   At<T> scores) const {
    for (const auto& part : block.parts(seen.prefix_k, seen.own_k, block.own()))
      FewRowsProduct<T>(queries.count, queries.q, {}, {scores.data + part.column, scores.stride})
          .run(part.rows, 0, part.rows.rows);
  }

  void finish(Index row, Index head, Index i) {
    const RunningSoftmax<T>& state = states_[i];
    const T share = 1 / state.total;
    T* out = own_out(row, head);
    for (Index d = 0; d < at_.dim; ++d) out[d] *= share;
    if (a_.log_sum) a_.log_sum.row(row)[head] = state.top + std::log(state.total);
    const Index n = row % at_.positions, replica = row / at_.positions;
    for (Index p = 0; p < at_.sources; ++p) {
      if (at_.sources == 1 || p == replica) continue;
      const T weight = share * exponential(cross_[i * at_.sources + p] - state.top);
      const T* value = a_.qkv.data + at_.value(p * at_.positions + n, kv_head_);
      T* block = a_.out.data + at_.out(row, p, head);
      for (Index d = 0; d < at_.dim; ++d) block[d] = weight * value[d];
    }
  }

  const op::Attend<T, T>& a_;
  const HeadPlaces& at_;
  T *keys_, *scores_, *panel_;
  RunningSoftmax<T>* states_;
  T* cross_;
  Index stream_ = 0, kv_head_ = 0;
};

/// Both kinds: `sources` is 1, or the number of replicas when expanded. One task is a tile of queries with
/// all heads that share a key/value head.
template <class T>
void attend(Threads& threads, Scratch& scratch, Index head_dim, Index sources, const op::Attend<T, T>& a) {
  const HeadPlaces at(a.layout, a.heads, a.kv_heads, head_dim, sources);
  if (at.positions == 0) return;
  using Tile = AttendTile<T>;
  const Index tiles = pieces(at.tokens, Tile::most_queries), scratch_each = Tile::scratch_size(at);
  T* memory = scratch.take<T>(scratch_each * threads.count());
  threads.run(a.layout.replicas * at.sequences * at.kv_heads * tiles, [&](Index task, int thread) {
    const Index tile = tiles - 1 - task % tiles;  // the longest first
    const Index kv_head = task / tiles % at.kv_heads, stream = task / tiles / at.kv_heads;
    Tile(a, at, memory + thread * scratch_each)
        .run(stream, kv_head, tile * Tile::most_queries,
             std::min(at.tokens, (tile + 1) * Tile::most_queries));
  });
}

}  // namespace parscale::cpu
