/// Reads the model of a tokenizer.json: a byte-level BPE's vocabulary and merges.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "bpe.hpp"
#include "byte_level.hpp"
#include "tokenizer_json.hpp"
#include "vocabulary.hpp"

namespace parscale::io {

namespace detail {

/// Throws InputError for options under which BPE computes something else.
inline void check_bpe_options(const TokenizerJson& model) {
  if (model.find("type") != nullptr && model.text("type") != "BPE") model.refuse_type("BPE");
  const Json* dropout = model.find("dropout");
  if (dropout != nullptr && *dropout != 0.0)
    model.refuse("uses dropout, which is not supported", shown(*dropout));
  for (const char* key : {"byte_fallback", "fuse_unk"}) {
    if (model.fields().flag_or(key, false))
      model.refuse("uses " + std::string(key) + ", which is not supported", "it is true");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto text = model.fields().text_or(key, "");
    if (!text.empty())
      model.refuse("uses " + std::string(key) + ", which is not supported", "\"" + text + "\"");
  }
}

inline Vocabulary read_vocabulary(const TokenizerJson& model) {
  const TokenizerJson entries = model.object("vocab");
  Vocabulary vocabulary;
  for (const auto& [spelling, id] : model.at("vocab").members()) {
    if (!id.is_number_integer()) entries.refuse("has an id that is not an integer", "\"" + spelling + "\"");
    vocabulary.add(spelling, id.get<std::int64_t>(), true, entries.where());
  }
  return vocabulary;
}

/// Whether a byte occurs in valid UTF-8.
constexpr bool occurs_in_utf8(int byte) { return byte < 0xC0 || (byte > 0xC1 && byte < 0xF5); }

/// The tokens of the single bytes. Every byte that a text can contain needs one: others would be lost.
inline std::array<std::int32_t, 256> read_byte_ids(const TokenizerJson& model, const Vocabulary& vocabulary) {
  std::array<std::int32_t, 256> ids{};
  for (int byte = 0; byte < 256; ++byte) {
    const auto spelling = spell_bytes(std::string(1, static_cast<char>(byte)));
    const auto id = vocabulary.find(spelling);
    if (!id && occurs_in_utf8(byte))
      model.refuse("lacks tokens of the byte alphabet",
                   "there is no \"" + spelling + "\" for the byte " + std::to_string(byte),
                   "only byte-level BPE with all of its 256 bytes is supported");
    ids[static_cast<std::size_t>(byte)] = id.value_or(-1);
  }
  return ids;
}

/// A merge's two spellings, from "a b" or ["a", "b"].
inline std::pair<std::string_view, std::string_view> merge_parts(const Json& merge,
                                                                 const TokenizerJson& model) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return {merge[0].text(), merge[1].text()};
  if (merge.is_string()) {
    const std::string_view text = merge.text();
    const std::size_t space = text.find(' ');
    if (space != text.npos && text.find(' ', space + 1) == text.npos)
      return {text.substr(0, space), text.substr(space + 1)};
  }
  model.refuse("has a merge that is neither \"a b\" nor [\"a\", \"b\"]", shown(merge));
}

inline std::int32_t id_for_merge(std::string_view spelling, const Vocabulary& vocabulary, const Json& merge,
                                 const TokenizerJson& model) {
  const auto id = vocabulary.find(spelling);
  if (!id)
    model.refuse("has a merge with a token that its vocabulary lacks",
                 "\"" + std::string(spelling) + "\", of the merge " + shown(merge));
  return *id;
}

inline MergeTable read_merges(const TokenizerJson& model, const Vocabulary& vocabulary) {
  const Json& merges = model.array("merges");
  MergeTable table(merges.size());
  std::int32_t rank = 0;
  for (const Json& merge : merges) {
    // A line of the merges.txt of old that some files still carry.
    if (merge.is_string() && merge.text().starts_with("#version")) continue;
    const auto [left, right] = merge_parts(merge, model);
    const auto id = [&](std::string_view spelling) {
      return id_for_merge(spelling, vocabulary, merge, model);
    };
    const std::int32_t joined = id(std::string(left) + std::string(right));
    table.insert(id(left), id(right), {rank++, joined});
  }
  return table;
}

}  // namespace detail

/// A BPE model with its vocabulary.
struct TokenizerModel {
  Vocabulary vocabulary;
  Bpe bpe;
  bool ignore_merges;  ///< words that are tokens as a whole are not merged
};

/// Throws InputError for other models, and for options or entries that are not supported.
inline TokenizerModel read_tokenizer_model(const TokenizerJson& model) {
  detail::check_bpe_options(model);
  Vocabulary vocabulary = detail::read_vocabulary(model);
  const auto byte_ids = detail::read_byte_ids(model, vocabulary);
  Bpe bpe(byte_ids, detail::read_merges(model, vocabulary));
  return {std::move(vocabulary), std::move(bpe), model.fields().flag_or("ignore_merges", false)};
}

}  // namespace parscale::io
