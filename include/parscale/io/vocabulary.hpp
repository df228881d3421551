/// The tokens of a tokenizer: ids, spellings in the byte alphabet, and the bytes that they stand for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "byte_level.hpp"

namespace parscale::io {

/// Tokens by id and by spelling. Ids may have gaps.
class Vocabulary {
 public:
  static constexpr std::int64_t highest_id = (1 << 24) - 1;

  /// Adds a token. `mergeable`: it belongs to the BPE model, otherwise it is an added token. Throws
  /// InputError (with `where`) for an id out of range, an id or a spelling that is taken.
  void add(const std::string& spelling, std::int64_t id, bool mergeable, const std::string& where) {
    if (id < 0 || id > highest_id)
      refuse("A token's id is out of range", spelling, id, "ids go from 0 to " + std::to_string(highest_id),
             where);
    const auto index = static_cast<std::size_t>(id);
    if (index >= by_id_.size()) by_id_.resize(index + 1, nullptr);
    if (by_id_[index] != nullptr)
      refuse("Two tokens have the same id", spelling, id, "so does \"" + by_id_[index]->spelling + "\"",
             where);
    auto bytes = spelt_bytes(spelling);
    tokens_.push_back({spelling, bytes ? *bytes : spelling, mergeable});
    by_id_[index] = &tokens_.back();
    if (!ids_.emplace(tokens_.back().spelling, static_cast<std::int32_t>(id)).second)
      refuse("A token is listed twice", spelling, id, "", where);
  }

  /// The token of this spelling ("Ġthe", "<|endoftext|>").
  std::optional<std::int32_t> find(std::string_view spelling) const {
    const auto found = ids_.find(spelling);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  /// The token of the model that stands for these bytes as a whole.
  std::optional<std::int32_t> find_bytes(std::string_view bytes) const {
    const auto id = find(spell_bytes(bytes));
    return id && by_id_[static_cast<std::size_t>(*id)]->mergeable ? id : std::nullopt;
  }

  /// What a token stands for: its spelling decoded, or the spelling itself if that has characters beyond the
  /// byte alphabet. Nothing for an id without a token.
  std::optional<std::string_view> bytes_of(std::int32_t id) const {
    const auto index = static_cast<std::size_t>(id);
    if (id < 0 || index >= by_id_.size() || by_id_[index] == nullptr) return std::nullopt;
    return by_id_[index]->bytes;
  }

  /// Special tokens steer the model and are no text.
  void mark_special(std::int32_t id) { by_id_[static_cast<std::size_t>(id)]->special = true; }
  bool is_special(std::int32_t id) const {
    return bytes_of(id) && by_id_[static_cast<std::size_t>(id)]->special;
  }

  /// How many tokens there are.
  std::size_t count() const { return tokens_.size(); }
  /// The highest id + 1.
  std::size_t id_end() const { return by_id_.size(); }

 private:
  struct Token {
    std::string spelling;
    std::string bytes;
    bool mergeable;
    bool special = false;
  };

  [[noreturn]] static void refuse(const char* what, const std::string& spelling, std::int64_t id,
                                  const std::string& why, const std::string& where) {
    throw InputError({.what = what,
                      .where = where + ", token \"" + spelling + "\", id " + std::to_string(id),
                      .why = why});
  }

  std::deque<Token> tokens_;  // a deque, because the other two point into it
  std::vector<Token*> by_id_;
  std::unordered_map<std::string_view, std::int32_t> ids_;
};

}  // namespace parscale::io
