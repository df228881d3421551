/// Byte-pair encoding: a word starts as its bytes' tokens; again and again the neighbouring pair of the
/// lowest rank (the leftmost of several) becomes one token, until no pair has a merge.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace parscale::io {

/// What a pair of tokens becomes. Lower ranks go first.
struct Merge {
  static constexpr std::int32_t never = std::numeric_limits<std::int32_t>::max();
  std::int32_t rank = never;
  std::int32_t id = -1;
};

/// Merges by pair: an open-addressing hash table that never holds more than half of its slots.
class MergeTable {
 public:
  explicit MergeTable(std::size_t merges) {
    while (slots_.size() < 2 * merges) slots_.resize(2 * slots_.size());
    shift_ = 64;
    for (std::size_t size = slots_.size(); size > 1; size /= 2) --shift_;
  }

  /// A pair that is there already gets the new merge.
  void insert(std::int32_t left, std::int32_t right, Merge merge) {
    Slot& slot = slots_[position_of(key_of(left, right))];
    slot = {key_of(left, right), merge};
  }

  /// The pair's merge, of rank `never` when it has none.
  Merge find(std::int32_t left, std::int32_t right) const {
    return slots_[position_of(key_of(left, right))].merge;
  }

 private:
  static constexpr std::uint64_t free = ~std::uint64_t{0};  // no pair: ids are not negative
  struct Slot {
    std::uint64_t key = free;
    Merge merge = {};
  };

  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }

  /// The key's slot, or the free one where it belongs.
  std::size_t position_of(std::uint64_t key) const {
    std::uint64_t hash = key * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u;
    std::size_t at = static_cast<std::size_t>(hash >> shift_);
    while (slots_[at].key != key && slots_[at].key != free) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  std::vector<Slot> slots_ = std::vector<Slot>(2);
  int shift_;
};

/// Encodes words. Const use is thread-safe.
class Bpe {
 public:
  /// `byte_ids`: the token of each byte.
  Bpe(const std::array<std::int32_t, 256>& byte_ids, MergeTable merges)
      : byte_ids_(byte_ids), merges_(std::move(merges)) {}

  /// Appends a word's tokens.
  void encode(std::string_view word, std::vector<std::int32_t>& out) const {
    if (word.size() <= short_word)
      encode_short(word, out);
    else
      encode_long(word, out);
  }

 private:
  static constexpr std::size_t short_word = 64;

  std::int32_t byte_id(char byte) const { return byte_ids_[static_cast<unsigned char>(byte)]; }

  /// Looks at all pairs for each merge: quadratic, and the fastest way for the few tokens of a usual word.
  void encode_short(std::string_view word, std::vector<std::int32_t>& out) const {
    std::array<std::int32_t, short_word> ids;
    std::array<Merge, short_word> merges;  // of the pair (i, i + 1)
    std::size_t count = word.size();
    for (std::size_t i = 0; i < count; ++i) ids[i] = byte_id(word[i]);
    for (std::size_t i = 0; i + 1 < count; ++i) merges[i] = merges_.find(ids[i], ids[i + 1]);
    while (count > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < count; ++i)
        if (merges[i].rank < merges[best].rank) best = i;
      if (merges[best].rank == Merge::never) break;
      ids[best] = merges[best].id;
      --count;
      for (std::size_t i = best + 1; i < count; ++i) {
        ids[i] = ids[i + 1];
        merges[i - 1] = merges[i];
      }
      if (best + 1 < count) merges[best] = merges_.find(ids[best], ids[best + 1]);
      if (best > 0) merges[best - 1] = merges_.find(ids[best - 1], ids[best]);
    }
    out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count));
  }

  /// A token of a long word, in a doubly linked list by index.
  struct Symbol {
    std::int32_t id;
    std::size_t previous;
    std::size_t next;
  };
  /// A pair that could be merged, by its left symbol.
  struct Candidate {
    Merge merge;
    std::size_t at;
    bool operator>(const Candidate& other) const {
      return merge.rank != other.merge.rank ? merge.rank > other.merge.rank : at > other.at;
    }
  };
  using Candidates = std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>>;
  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  static constexpr std::int32_t absorbed = -1;  // id of a symbol that became part of the one before it

  /// Keeps the pairs in a heap: n log n. Candidates of symbols that have changed since are recognised when
  /// they come up, because a pair has one rank only.
  void encode_long(std::string_view word, std::vector<std::int32_t>& out) const {
    std::vector<Symbol> symbols(word.size());
    for (std::size_t i = 0; i < word.size(); ++i)
      symbols[i] = {byte_id(word[i]), i == 0 ? none : i - 1, i + 1 == word.size() ? none : i + 1};
    Candidates candidates;
    for (std::size_t i = 0; i < word.size(); ++i) add_candidate(symbols, i, candidates);
    while (!candidates.empty()) {
      const Candidate best = candidates.top();
      candidates.pop();
      if (merge_at(symbols, best.at).rank != best.merge.rank) continue;
      absorb_next(symbols, best.at, best.merge.id);
      add_candidate(symbols, best.at, candidates);
      add_candidate(symbols, symbols[best.at].previous, candidates);
    }
    for (std::size_t i = 0; i != none; i = symbols[i].next) out.push_back(symbols[i].id);
  }

  /// The merge of a symbol with the next one.
  Merge merge_at(const std::vector<Symbol>& symbols, std::size_t at) const {
    if (at == none || symbols[at].id == absorbed || symbols[at].next == none) return {};
    return merges_.find(symbols[at].id, symbols[symbols[at].next].id);
  }

  void add_candidate(const std::vector<Symbol>& symbols, std::size_t at, Candidates& candidates) const {
    const Merge merge = merge_at(symbols, at);
    if (merge.rank != Merge::never) candidates.push({merge, at});
  }

  static void absorb_next(std::vector<Symbol>& symbols, std::size_t at, std::int32_t id) {
    Symbol& next = symbols[symbols[at].next];
    symbols[at] = {id, symbols[at].previous, next.next};
    if (next.next != none) symbols[next.next].previous = at;
    next.id = absorbed;
  }

  std::array<std::int32_t, 256> byte_ids_;
  MergeTable merges_;
};

}  // namespace parscale::io
