/// Where attention finds its operands: heads inside rows, keys that a query sees, blocks of keys.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "../backend.hpp"
#include "kernel.hpp"

namespace parscale::cpu {

/// Sizes of an attention call and where heads lie inside rows of qkv and out.
struct HeadPlaces {
  Index tokens, sequences, positions, heads, kv_heads, group, dim;
  Index qkv_width, out_width;  ///< columns of a row
  Index sources;               ///< blocks of out: P when expanded, else 1

  HeadPlaces(const Layout& layout, Index query_heads, Index key_heads, Index head_dim, Index blocks)
      : tokens(layout.tokens),
        sequences(layout.sequences),
        positions(layout.positions()),
        heads(query_heads),
        kv_heads(key_heads),
        group(query_heads / key_heads),
        dim(head_dim),
        qkv_width((query_heads + 2 * key_heads) * head_dim),
        out_width(blocks * query_heads * head_dim),
        sources(blocks) {}

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

/// The keys and values that one (stream, key/value head) can see: the prefix and its own.
template <class T>
struct Visible {
  Block<const T> prefix_k, prefix_v, own_k, own_v;
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

/// Which of a stream's own keys a token sees: [begin, end).
struct Causal {
  const Layout& layout;
  Index sequence, past;

  Causal(const Layout& l, Index b) : layout(l), sequence(b), past(l.past ? l.past.data[b] : 0) {}
  Index begin(Index token) const {
    return layout.starts ? layout.starts.data[sequence * layout.tokens + token] : 0;
  }
  Index end(Index token) const { return past + token + 1; }
  /// The first own key that any token of a tile sees.
  Index begin(Index from, Index to) const {
    Index least = begin(from);
    for (Index i = from + 1; i < to; ++i) least = std::min(least, begin(i));
    return least;
  }
};

/// Keys that are handled together. Their scores stand side by side: the prefix's first, the own ones from a
/// column where a panel begins.
struct KeyBlock {
  static constexpr Index columns = 512;  ///< of scores, at most

  Index prefix_begin, prefix_end, own_begin, own_end, own_column;

  Index prefix() const { return prefix_end - prefix_begin; }
  Index own() const { return own_end - own_begin; }
  Index used() const { return own_column + own(); }

  /// Rows that lie evenly in memory, and the column of their scores.
  template <class T>
  struct Part {
    Block<const T> rows;
    Index column;
  };
  /// The prefix's keys (or values) of this block, then the first `count` of its own ones.
  template <class T>
  std::array<Part<T>, 2> parts(const Block<const T>& in_prefix, const Block<const T>& in_own,
                               Index count) const {
    return {{{{in_prefix.row(prefix_begin), prefix(), in_prefix.cols, in_prefix.stride}, 0},
             {{in_own.row(own_begin), count, in_own.cols, in_own.stride}, own_column}}};
  }
};

/// f(block) for the prefix and the own keys [begin, end), in order.
template <class T, class F>
void each_key_block(Index prefix, Index begin, Index end, F f) {
  const auto rounded = [](Index n) { return pieces(n, Kernel<T>::cols) * Kernel<T>::cols; };
  Index p = 0, own = begin;
  do {
    KeyBlock block{p, std::min(prefix, p + KeyBlock::columns), own, own, 0};
    block.own_column = rounded(block.prefix());
    if (block.prefix_end == prefix) block.own_end = std::min(end, own + KeyBlock::columns - block.own_column);
    p = block.prefix_end;
    own = block.own_end;
    f(block);
  } while (p < prefix || own < end);
}

/// Columns of a block that one token sees: [0, prefix) and [lo, hi).
struct SeenColumns {
  Index prefix, lo, hi;

  SeenColumns(const KeyBlock& block, const Causal& causal, Index token) : prefix(block.prefix()) {
    const auto column = [&](Index key) {
      return block.own_column + std::clamp(key, block.own_begin, block.own_end) - block.own_begin;
    };
    lo = column(causal.begin(token));
    hi = std::max(lo, column(causal.end(token)));
  }
  bool none() const { return prefix == 0 && lo == hi; }
  /// [begin, end) twice; either may be empty.
  std::array<std::pair<Index, Index>, 2> stretches() const { return {{{0, prefix}, {lo, hi}}}; }
  /// Zeros among the first `columns` where the token must not look.
  template <class T>
  void clear_hidden(T* row, Index columns) const {
    for (Index j = prefix; j < std::min(lo, columns); ++j) row[j] = 0;
    for (Index j = hi; j < columns; ++j) row[j] = 0;
  }
};

/// Keys or values of a block, turned into panels for products with their transpose.
template <class T>
void pack_block(const KeyBlock& block, const Block<const T>& prefix, const Block<const T>& own, T* panels) {
  for (const auto& [rows, column] : block.parts(prefix, own, block.own()))
    pack_panels<Kernel<T>::cols>(Strided<T>(rows.data, rows.rows, rows.cols, rows.stride, 1),
                                 panels + column * rows.cols, 0, pieces(rows.rows, Kernel<T>::cols));
}

/// scores [m, columns] = q k^T with packed keys; whole panels, columns without a key get 0 or stay unused.
template <class T>
void score_block(Index m, Index columns, Index dim, At<const T> q, const T* panels, At<T> scores) {
  using K = Kernel<T>;
  for (Index j = 0; j < columns; j += K::cols)
    K::template run<Left::by_rows>(m, K::cols, dim, q, {panels + j * dim, K::cols}, K::nothing,
                                   {scores.data + j, scores.stride});
}

}  // namespace parscale::cpu
