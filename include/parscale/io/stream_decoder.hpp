/// Text from tokens that come one by one, as when a model generates: never half a character.
#pragma once

#include <cstdint>
#include <string>

#include "tokenizer.hpp"
#include "unicode.hpp"

namespace parscale::io {

/// Decodes a stream of tokens. All that push() and finally flush() return is, put together, what
/// Tokenizer::decode says of the whole.
class StreamDecoder {
 public:
  /// `tokenizer` has to outlive the decoder.
  explicit StreamDecoder(const Tokenizer& tokenizer, SpecialTokens special = SpecialTokens::keep)
      : tokenizer_(&tokenizer), special_(special) {}

  /// The text that this token completes; often empty in scripts of several bytes a character. Throws
  /// InputError for an id without a token.
  std::string push(std::int32_t id) {
    pending_ += tokenizer_->bytes_of(id, special_);
    std::string text;
    pending_.erase(0, append_repaired(pending_, text));
    return text;
  }

  /// U+FFFD when the stream ended inside of a character. The decoder is ready for another stream then.
  std::string flush() {
    std::string text;
    if (!pending_.empty()) append_utf8(0xFFFD, text);
    pending_.clear();
    return text;
  }

 private:
  const Tokenizer* tokenizer_;
  SpecialTokens special_;
  std::string pending_;  // the beginning of a character
};

}  // namespace parscale::io
