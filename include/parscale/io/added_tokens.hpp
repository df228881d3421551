/// Added tokens: strings that are tokens as a whole wherever they stand in a text, before anything else looks
/// at it. "Special" ones (<|endoftext|>) can be left out when decoding.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "regex.hpp"
#include "unicode.hpp"

namespace parscale::io {

struct AddedToken {
  std::string content;
  std::int32_t id = -1;
  bool special = false;
  bool single_word = false;  ///< only where no letter, digit or underscore touches it
  bool lstrip = false;       ///< takes the white space before it along
  bool rstrip = false;       ///< takes the white space after it along
  bool normalized = false;   ///< looked for in the normalised text, itself normalised
};

/// Finds added tokens in a text. Const use is thread-safe, each thread with its own scratch.
class AddedTokenFinder {
 public:
  /// Of tokens with equal content the first one counts. `content` must not be empty.
  explicit AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
    std::stable_sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
      return first_byte(a.content) != first_byte(b.content) ? first_byte(a.content) < first_byte(b.content)
                                                            : a.content.size() > b.content.size();
    });
    for (const AddedToken& token : tokens_) ++begin_[first_byte(token.content) + 1];
    for (std::size_t i = 1; i < begin_.size(); ++i) begin_[i] += begin_[i - 1];
  }

  /// Walks through a valid text: on_text(piece) for what lies between tokens (never empty), on_token(id).
  template <class OnText, class OnToken>
  void split(std::string_view text, RegexScratch& scratch, OnText&& on_text, OnToken&& on_token) const {
    std::size_t done = 0;
    for (std::size_t at = 0; !tokens_.empty() && at < text.size();) {
      const AddedToken* token = longest_at(text, at);
      if (token == nullptr) {
        ++at;
        continue;
      }
      std::size_t begin = at, end = at + token->content.size();
      at = end;
      if (token->single_word && touches_word(text, begin, end, scratch)) continue;
      if (token->lstrip)
        begin = skip_space_back(text, begin);  // maybe into the token before: it has that space
      if (token->rstrip) end = skip_space(text, end);
      if (done < begin) on_text(text.substr(done, begin - done));
      on_token(token->id);
      done = end;
    }
    if (done < text.size()) on_text(text.substr(done));
  }

 private:
  static std::size_t first_byte(std::string_view content) { return static_cast<unsigned char>(content[0]); }

  const AddedToken* longest_at(std::string_view text, std::size_t at) const {
    const std::size_t first = first_byte(text.substr(at, 1));
    for (std::size_t i = begin_[first]; i < begin_[first + 1]; ++i)
      if (text.compare(at, tokens_[i].content.size(), tokens_[i].content) == 0) return &tokens_[i];
    return nullptr;
  }

  static std::size_t skip_space(std::string_view text, std::size_t at) {
    while (at < text.size() && is_white_space(character_at(text, at).code_point))
      at += character_at(text, at).length;
    return at;
  }
  static std::size_t skip_space_back(std::string_view text, std::size_t at) {
    while (at > 0 && is_white_space(character_at(text, previous_character(text, at)).code_point))
      at = previous_character(text, at);
    return at;
  }

  bool touches_word(std::string_view text, std::size_t begin, std::size_t end, RegexScratch& scratch) const {
    const auto is_word = [&](std::size_t at) {
      return word_character_.find(text.substr(at, character_at(text, at).length), 0, scratch).has_value();
    };
    return (begin > 0 && is_word(previous_character(text, begin))) || (end < text.size() && is_word(end));
  }

  std::vector<AddedToken> tokens_;           // by first byte, longest first
  std::array<std::size_t, 257> begin_ = {};  // of the tokens with each first byte
  Regex word_character_{"[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]", "added_tokens.single_word"};
};

}  // namespace parscale::io
