/// Reads the components of a tokenizer.json around its model: normaliser, pre-tokeniser, added tokens,
/// post-processor and decoder. What would make other ids or another text than Hugging Face's tokenizers is
/// refused by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "added_tokens.hpp"
#include "oniguruma.hpp"
#include "pre_tokenizer.hpp"
#include "tokenizer_json.hpp"
#include "vocabulary.hpp"

namespace parscale::io {

/// Whether text is to be brought into Unicode's form C. `normalizer` may be absent, NFC, or a Sequence of
/// NFC.
inline bool read_normalizer(const TokenizerJson& normalizer) {
  const auto type = normalizer.text("type");
  if (type == "NFC") return true;
  if (type != "Sequence") normalizer.refuse_type("NFC, Sequence");
  bool nfc = false;
  normalizer.for_each("normalizers", [&](const TokenizerJson& step) { nfc |= read_normalizer(step); });
  return nfc;
}

namespace detail {

inline SplitBehavior read_split_behavior(const TokenizerJson& split) {
  const auto name = split.text("behavior");
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  split.refuse("has an unknown behavior", name);
}

inline Splitter read_split(const TokenizerJson& split) {
  const TokenizerJson pattern = split.object("pattern");
  const std::string text = pattern.find("Regex") != nullptr
                               ? pcre2_from_oniguruma(pattern.text("Regex"), pattern.where())
                               : pcre2_from_literal(pattern.text("String"));
  return Splitter(Regex(text, pattern.where()), read_split_behavior(split), split.flag("invert"));
}

inline Splitter read_digits(const TokenizerJson& digits) {
  const bool individual = digits.flag("individual_digits");
  return Splitter(Regex("\\p{N}", digits.where()),
                  individual ? SplitBehavior::isolated : SplitBehavior::contiguous);
}

inline ByteLevelStep read_byte_level(const TokenizerJson& byte_level) {
  ByteLevelStep step{.add_prefix_space = byte_level.flag("add_prefix_space")};
  if (byte_level.fields().flag_or("use_regex", true)) step.splitter = ByteLevelStep::gpt2_splitter();
  return step;
}

/// The chain as it is being read.
struct PreTokenizerParts {
  std::vector<Splitter> splitters = {};
  std::optional<ByteLevelStep> byte_level = std::nullopt;
};

inline void read_pre_tokenizer_part(const TokenizerJson& part, PreTokenizerParts& parts) {
  const auto type = part.text("type");
  if (type == "Sequence") {
    part.for_each("pretokenizers", [&](const TokenizerJson& step) { read_pre_tokenizer_part(step, parts); });
    return;
  }
  if (parts.byte_level) part.refuse("follows ByteLevel, which has to be the last pre-tokenizer", type);
  if (type == "Split") {
    parts.splitters.push_back(read_split(part));
  } else if (type == "Digits") {
    parts.splitters.push_back(read_digits(part));
  } else if (type == "ByteLevel") {
    parts.byte_level = read_byte_level(part);
  } else {
    part.refuse_type("Split, Digits, ByteLevel, Sequence");
  }
}

}  // namespace detail

/// A chain of Split and Digits that ends in ByteLevel.
inline PreTokenizer read_pre_tokenizer(const TokenizerJson& pre_tokenizer) {
  detail::PreTokenizerParts parts;
  detail::read_pre_tokenizer_part(pre_tokenizer, parts);
  if (!parts.byte_level)
    pre_tokenizer.refuse("lacks the ByteLevel step", "only byte-level tokenizers are supported");
  return PreTokenizer(std::move(parts.splitters), std::move(*parts.byte_level));
}

/// One added token. Throws InputError unless its id is `expected_id`.
inline AddedToken read_added_token(const TokenizerJson& token, std::int64_t expected_id) {
  const auto id = token.fields().integer("id", 0, Vocabulary::highest_id);
  if (id != expected_id)
    token.refuse(
        "is an added token with an unexpected id",
        "its id is " + std::to_string(id) + ", Hugging Face's tokenizers would make it " +
            std::to_string(expected_id),
        "give tokens of the vocabulary their id there, and the others the ids that follow it, in order");
  return {.content = token.text("content"),
          .id = static_cast<std::int32_t>(id),
          .special = token.flag("special"),
          .single_word = token.flag("single_word"),
          .lstrip = token.flag("lstrip"),
          .rstrip = token.flag("rstrip"),
          .normalized = token.flag("normalized")};
}

/// The added tokens of a file. Those that the vocabulary lacks join it, special ones are marked there.
inline std::vector<AddedToken> read_added_tokens(const TokenizerJson& file, Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  if (file.find("added_tokens") == nullptr) return tokens;
  std::unordered_set<std::string> contents;
  file.for_each("added_tokens", [&](const TokenizerJson& entry) {
    const auto content = entry.text("content");
    if (content.empty()) entry.refuse("is an added token without content", "");
    if (!contents.insert(content).second) entry.refuse("is an added token for the second time", content);
    const auto known = vocabulary.find(content);
    tokens.push_back(read_added_token(entry, known ? *known : static_cast<std::int64_t>(vocabulary.count())));
    if (!known) vocabulary.add(content, tokens.back().id, false, entry.where());
    if (tokens.back().special) vocabulary.mark_special(tokens.back().id);
  });
  return tokens;
}

/// Throws InputError unless the post-processor only adds special tokens or moves offsets: neither changes
/// what encode() returns.
inline void check_post_processor(const TokenizerJson& processor) {
  const auto type = processor.text("type");
  if (type == "Sequence") return processor.for_each("processors", check_post_processor);
  if (type != "ByteLevel" && type != "TemplateProcessing")
    processor.refuse_type("ByteLevel, TemplateProcessing, Sequence");
}

/// Throws InputError unless tokens are put together as bytes.
inline void check_decoder(const TokenizerJson& decoder) {
  if (decoder.text("type") != "ByteLevel") decoder.refuse_type("ByteLevel");
}

/// Checks what is not read otherwise. Throws InputError.
inline void check_whole_file(const TokenizerJson& file) {
  if (const auto version = file.fields().text_or("version", "1.0"); version != "1.0")
    file.refuse("has a version that is not supported", version, "1.0 is supported");
  for (const char* key : {"truncation", "padding"}) {
    if (file.find(key) != nullptr)
      file.refuse("asks for " + std::string(key) + ", which is not supported", "it would change the ids",
                  "set \"" + std::string(key) + "\" to null");
  }
  if (file.find("post_processor") != nullptr) check_post_processor(file.object("post_processor"));
  check_decoder(file.object("decoder"));
}

}  // namespace parscale::io
