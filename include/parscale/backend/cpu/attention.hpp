/// Causal attention over a prefix and a stream's own keys, in tiles of queries and blocks of keys.
/// Softmax is kept as a running maximum and a running sum, so only one tile of scores exists a thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "../backend.hpp"
#include "memory.hpp"
#include "products.hpp"
#include "threads.hpp"
#include "vectors.hpp"

namespace parscale::cpu {

inline constexpr Index query_tile = 64;
inline constexpr Index key_block = 256;

/// Sizes of an attention call and where heads lie inside rows of qkv and out.
struct HeadPlaces {
  Index tokens, sequences, positions, heads, kv_heads, group, dim;
  Index qkv_width, out_width;  ///< columns of a row
  Index sources;               ///< blocks of out: P when expanded, else 1

  template <class A>
  HeadPlaces(const A& a, Index head_dim, Index blocks)
      : tokens(a.layout.tokens),
        sequences(a.layout.sequences),
        positions(a.layout.positions()),
        heads(a.heads),
        kv_heads(a.kv_heads),
        group(a.heads / a.kv_heads),
        dim(head_dim),
        qkv_width((a.heads + 2 * a.kv_heads) * head_dim),
        out_width(blocks * a.heads * head_dim),
        sources(blocks) {}

  Index streams() const { return positions == 0 ? 0 : sequences; }
  Index query(Index row, Index head) const { return row * qkv_width + head * dim; }
  Index key(Index row, Index kv_head) const { return row * qkv_width + (heads + kv_head) * dim; }
  Index value(Index row, Index kv_head) const { return row * qkv_width + (heads + kv_heads + kv_head) * dim; }
  /// The result of a head whose values came from replica `source` (0 when not expanded).
  Index out(Index row, Index source, Index head) const {
    return row * out_width + source * heads * dim + head * dim;
  }
  Index own_source(Index replica) const { return sources > 1 ? replica : 0; }
  template <class T>
  T scale() const {
    return static_cast<T>(1 / std::sqrt(static_cast<double>(dim)));
  }
};

/// The keys and values that one (stream, key/value head) can see: first the prefix, then its own, as one
/// range of columns.
template <class T>
struct Visible {
  Block<const T> prefix_k, prefix_v, own_k, own_v;

  Index prefix() const { return prefix_k.rows; }

  /// f(first column inside the block, keys, values) for the parts of the columns [begin, end).
  template <class F>
  void each_part(Index begin, Index end, F f) const {
    const Index seam = std::clamp(prefix(), begin, end);
    if (begin < seam) f(Index{0}, part(prefix_k, begin, seam), part(prefix_v, begin, seam));
    if (seam < end)
      f(seam - begin, part(own_k, seam - prefix(), end - prefix()),
        part(own_v, seam - prefix(), end - prefix()));
  }

 private:
  static Block<const T> part(const Block<const T>& b, Index begin, Index end) {
    return {b.row(begin), end - begin, b.cols, b.stride};
  }
};

template <class T, class A>
Visible<T> visible(const A& a, const HeadPlaces& at, Index stream, Index kv_head) {
  const Index d = at.dim, row = stream * at.tokens, prefix = a.prefix_k ? a.prefix_k.extent[2] : 0;
  const Index prefix_at = (stream / at.sequences * at.kv_heads + kv_head) * prefix * d;
  return {{a.prefix_k.data + prefix_at, prefix, d, d},
          {a.prefix_v.data + prefix_at, prefix, d, d},
          {a.qkv.data + at.key(row, kv_head), at.tokens, d, at.qkv_width},
          {a.qkv.data + at.value(row, kv_head), at.tokens, d, at.qkv_width}};
}

/// As above with the own keys taken from the cache when there is one.
template <class T>
Visible<T> visible_with_cache(const op::Attend<T, T>& a, const HeadPlaces& at, Index stream, Index kv_head) {
  Visible<T> seen = visible<T>(a, at, stream, kv_head);
  if (!a.keys) return seen;
  const Index capacity = a.keys.extent[2], place = (stream * at.kv_heads + kv_head) * capacity * at.dim;
  seen.own_k = {a.keys.data + place, capacity, at.dim, at.dim};
  seen.own_v = {a.values.data + place, capacity, at.dim, at.dim};
  return seen;
}

/// Which own keys the queries of a tile see. Columns count the prefix first.
struct Causal {
  const Layout& layout;
  Index sequence, past, prefix;

  Causal(const Layout& l, Index b, Index prefix_tokens)
      : layout(l), sequence(b), past(l.past ? l.past.data[b] : 0), prefix(prefix_tokens) {}
  /// First own column that token i sees.
  Index begin(Index i) const {
    return prefix + (layout.starts ? layout.starts.data[sequence * layout.tokens + i] : 0);
  }
  Index end(Index i) const { return prefix + past + i + 1; }
  /// First own column that any of the tokens sees.
  Index first(Index from, Index to) const {
    Index least = begin(from);
    for (Index i = from + 1; i < to; ++i) least = std::min(least, begin(i));
    return least;
  }
};

/// A block of columns [begin, end) as one token sees it: prefix columns [0, prefix), own columns [lo, hi).
struct SeenColumns {
  Index prefix, lo, hi, width;

  SeenColumns(const Causal& causal, Index i, Index begin, Index end)
      : prefix(std::clamp(causal.prefix - begin, Index{0}, end - begin)),
        lo(std::clamp(causal.begin(i) - begin, prefix, end - begin)),
        hi(std::clamp(causal.end(i) - begin, lo, end - begin)),
        width(end - begin) {}
  bool none() const { return prefix == 0 && lo == hi; }
  /// Zeros where the token must not look.
  template <class T>
  void clear_hidden(T* row) const {
    std::fill(row + prefix, row + lo, T(0));
    std::fill(row + hi, row + width, T(0));
  }
};

/// Column blocks that the tokens [from, to) see: f(begin, end). The columns hidden from all are left out.
template <class F>
void each_key_block(const Causal& causal, Index from, Index to, F f) {
  const Index first = causal.first(from, to), end = causal.end(to - 1);
  if (first > causal.prefix + key_block) {  // far documents: the prefix by itself, then from the first start
    for (Index c = 0; c < causal.prefix; c += key_block) f(c, std::min(c + key_block, causal.prefix));
    for (Index c = first; c < end; c += key_block) f(c, std::min(c + key_block, end));
  } else {
    for (Index c = 0; c < end; c += key_block) f(c, std::min(c + key_block, end));
  }
}

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

/// Scores of one token in one column block become e^(score - top); the output row shrinks accordingly.
template <class T>
void softmax_block(T* scores, const SeenColumns& seen, RunningSoftmax<T>& state, T* out, Index dim) {
  if (!seen.none()) {
    T top = state.top;
    if (seen.prefix > 0) top = std::max(top, max_of(scores, seen.prefix));
    if (seen.hi > seen.lo) top = std::max(top, max_of(scores + seen.lo, seen.hi - seen.lo));
    const T shrink = state.raise(top);
    if (shrink != 1)
      for (Index d = 0; d < dim; ++d) out[d] *= shrink;
    const auto exponentiate = [&](T* s, Index n) {
      for (Index j = 0; j < n; ++j) s[j] = exponential(s[j] - state.top);
      state.total += sum<T>(n, [=](Index j) { return s[j]; });
    };
    exponentiate(scores, seen.prefix);
    exponentiate(scores + seen.lo, seen.hi - seen.lo);
  }
  seen.clear_hidden(scores);
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

/// One head's queries [from, to) of one stream.
template <class T>
class AttendTile {
 public:
  AttendTile(const op::Attend<T, T>& a, const HeadPlaces& at, T* scratch)
      : a_(a), at_(at), scores_(scratch), cross_(scratch + query_tile * key_block) {}
  static Index scratch_size(Index sources) { return query_tile * (key_block + sources); }

  void run(const Visible<T>& keys, Index stream, Index head, Index from, Index to) {
    const Index row = stream * at_.tokens + from, count = to - from, replica = stream / at_.sequences;
    const Causal causal(a_.layout, stream % at_.sequences, keys.prefix());
    const Block<const T> q{a_.qkv.data + at_.query(row, head), count, at_.dim, at_.qkv_width};
    const Block<T> out{a_.out.data + at_.out(row, at_.own_source(replica), head), count, at_.dim,
                       at_.out_width};
    RunningSoftmax<T> state[query_tile];
    for (Index i = 0; i < count; ++i) {
      std::fill_n(out.row(i), at_.dim, T(0));
      if (at_.sources > 1) begin_with_replicas(row + i, head, i, state[i]);
    }
    each_key_block(causal, from, to, [&](Index begin, Index end) {
      const Block<T> scores{scores_, count, end - begin, end - begin};
      std::fill_n(scores_, count * (end - begin), T(0));
      keys.each_part(begin, end, [&](Index first, Block<const T> k, Block<const T>) {
        add_product_nt<T>(q, k, {scores.data + first, count, k.rows, scores.stride}, at_.scale<T>());
      });
      for (Index i = 0; i < count; ++i)
        softmax_block(scores.row(i), SeenColumns(causal, from + i, begin, end), state[i], out.row(i),
                      at_.dim);
      keys.each_part(begin, end, [&](Index first, Block<const T>, Block<const T> v) {
        add_product<T>({scores.data + first, count, v.rows, scores.stride}, v, out, 1);
      });
    });
    for (Index i = 0; i < count; ++i) finish(row + i, head, i, state[i], out.row(i));
  }

 private:
  void begin_with_replicas(Index row, Index head, Index i, RunningSoftmax<T>& state) {
    const Index replica = row / at_.positions;
    T* scores = cross_ + i * at_.sources;
    replica_scores(a_, at_, row, head, scores);
    for (Index p = 0; p < at_.sources; ++p)
      if (p != replica) state.raise(scores[p]);
    for (Index p = 0; p < at_.sources; ++p)
      if (p != replica) state.total += exponential(scores[p] - state.top);
  }

  void finish(Index row, Index head, Index i, const RunningSoftmax<T>& state, T* out) {
    const T share = 1 / state.total;
    for (Index d = 0; d < at_.dim; ++d) out[d] *= share;
    if (a_.log_sum) a_.log_sum.row(row)[head] = state.top + std::log(state.total);
    if (at_.sources == 1) return;
    const Index n = row % at_.positions, replica = row / at_.positions;
    for (Index p = 0; p < at_.sources; ++p) {
      if (p == replica) continue;
      const T weight = share * exponential(cross_[i * at_.sources + p] - state.top);
      const T* value = a_.qkv.data + at_.value(p * at_.positions + n, head / at_.group);
      T* block = a_.out.data + at_.out(row, p, head);
      for (Index d = 0; d < at_.dim; ++d) block[d] = weight * value[d];
    }
  }

  const op::Attend<T, T>& a_;
  const HeadPlaces& at_;
  T *scores_, *cross_;
};

/// Both kinds: `sources` is 1, or the number of replicas when expanded. One task is a tile of queries with
/// all heads that share a key/value head.
template <class T>
void attend(Threads& threads, Scratch& scratch, Index head_dim, Index sources, const op::Attend<T, T>& a) {
  const HeadPlaces at(a, head_dim, sources);
  if (at.positions == 0) return;
  const Index tiles = (at.tokens + query_tile - 1) / query_tile;
  const Index scratch_each = AttendTile<T>::scratch_size(sources);
  T* memory = scratch.take<T>(scratch_each * threads.count());
  threads.run(a.layout.replicas * at.sequences * at.kv_heads * tiles, [&](Index task, int thread) {
    const Index tile = tiles - 1 - task % tiles;  // the longest first
    const Index kv_head = task / tiles % at.kv_heads, stream = task / tiles / at.kv_heads;
    const Visible<T> keys = visible_with_cache(a, at, stream, kv_head);
    AttendTile<T> attend_tile(a, at, memory + thread * scratch_each);
    for (Index h = 0; h < at.group; ++h)
      attend_tile.run(keys, stream, kv_head * at.group + h, tile * query_tile,
                      std::min(at.tokens, (tile + 1) * query_tile));
  });
}

template <class T>
void append(Threads& threads, Index head_dim, const op::Append<T>& a) {
  const HeadPlaces at(a, head_dim, 1);
  const Index capacity = a.keys.extent[2];
  threads.run_chunks(a.layout.rows(), 64, [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const Index stream = row / at.tokens, sequence = stream % at.sequences;
      const Index slot = (a.layout.past ? a.layout.past.data[sequence] : 0) + row % at.tokens;
      for (Index g = 0; g < at.kv_heads; ++g) {
        const Index place = ((stream * at.kv_heads + g) * capacity + slot) * head_dim;
        std::copy_n(a.qkv.data + at.key(row, g), head_dim, a.keys.data + place);
        std::copy_n(a.qkv.data + at.value(row, g), head_dim, a.values.data + place);
      }
    }
  });
}

}  // namespace parscale::cpu
