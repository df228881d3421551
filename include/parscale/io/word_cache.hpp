/// Words and their tokens, remembered: a few thousand words make up most of any text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace parscale::io {

/// A table of fixed size in which a new word takes the place of an older one with the same hash. An entry is
/// one cache line; words that do not fit into it are not remembered. One thread at a time.
class WordCache {
 public:
  WordCache() : entries_(std::size_t{1} << index_bits) {}

  /// The tokens of a word; empty when it is not known. Valid until the next remember().
  std::span<const std::int32_t> find(std::string_view word) const {
    if (word.size() > longest_word) return {};
    const Entry& entry = entries_[index_of(word)];
    if (entry.length != word.size() || std::memcmp(entry.word, word.data(), word.size()) != 0) return {};
    return {entry.ids, entry.count};
  }

  void remember(std::string_view word, std::span<const std::int32_t> ids) {
    if (word.size() > longest_word || ids.size() > most_ids) return;
    Entry& entry = entries_[index_of(word)];
    entry.length = static_cast<std::uint8_t>(word.size());
    entry.count = static_cast<std::uint8_t>(ids.size());
    std::memcpy(entry.word, word.data(), word.size());
    std::memcpy(entry.ids, ids.data(), ids.size_bytes());
  }

 private:
  static constexpr int index_bits = 14;
  static constexpr std::size_t longest_word = 30;
  static constexpr std::size_t most_ids = 8;

  struct alignas(64) Entry {
    char word[longest_word] = {};
    std::uint8_t length = 0;
    std::uint8_t count = 0;  ///< 0: free
    std::int32_t ids[most_ids] = {};
  };
  static_assert(sizeof(Entry) == 64);

  static std::size_t index_of(std::string_view word) {
    std::uint64_t hash = word.size();
    for (std::size_t at = 0; at < word.size(); at += 8) {
      std::uint64_t eight = 0;
      std::memcpy(&eight, word.data() + at, word.size() - at < 8 ? word.size() - at : 8);
      hash = (hash ^ eight) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 32;
    }
    return static_cast<std::size_t>((hash * 0x9E3779B97F4A7C15u) >> (64 - index_bits));
  }

  std::vector<Entry> entries_;
};

}  // namespace parscale::io
