/// Text to tokens and back, from a Hugging Face tokenizer.json: byte-level BPE with the same ids and the same
/// text as Hugging Face's tokenizers, without special tokens added.
///
///     text -> added tokens cut out -> form C -> words (PreTokenizer) -> tokens (WordCache, Bpe)
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "added_tokens.hpp"
#include "bpe.hpp"
#include "file.hpp"
#include "json.hpp"
#include "nfc.hpp"
#include "pre_tokenizer.hpp"
#include "tokenizer_components.hpp"
#include "tokenizer_json.hpp"
#include "tokenizer_model.hpp"
#include "unicode.hpp"
#include "vocabulary.hpp"
#include "word_cache.hpp"

namespace parscale::io {

/// Whether decoding shows special tokens (<|endoftext|>).
enum class SpecialTokens : std::uint8_t { keep, skip };

/// A tokenizer. Const use is thread-safe; encoding with several threads at once gives each its own memory.
class Tokenizer {
 public:
  /// Reads a tokenizer.json, or the one in a directory. Throws InputError: unreadable, malformed, or with a
  /// component that is not supported, named.
  static Tokenizer load(const std::filesystem::path& path) {
    std::error_code unknown;  // what cannot be asked about cannot be read either, and read_file says why
    const auto file = std::filesystem::is_directory(path, unknown) ? path / "tokenizer.json" : path;
    return parse(read_file(file), file.string());
  }

  /// Reads the content of a tokenizer.json; `where` names it in errors.
  static Tokenizer parse(std::string_view json, const std::string& where) {
    const Json root = parse_json(json, where);
    return Tokenizer(TokenizerJson(root, where), fingerprint_of(json));
  }

  /// The tokens of a text; added tokens in it are recognised, special ones too. Throws InputError with the
  /// position when the text is not valid UTF-8.
  std::vector<std::int32_t> encode(std::string_view utf8) const {
    std::vector<std::int32_t> ids;
    encode(utf8, ids);
    return ids;
  }

  /// The same, appended to `ids`.
  void encode(std::string_view utf8, std::vector<std::int32_t>& ids) const {
    if (const auto at = first_invalid_utf8(utf8)) refuse_bytes(utf8, *at);
    std::unique_ptr<Workspace> own = workspaces_->take();
    Workspace& work = *own;
    finder_.split(
        utf8, work.words.regex, [&](std::string_view text) { encode_plain(text, work, ids); },
        [&](std::int32_t id) { ids.push_back(id); });
    workspaces_->give_back(std::move(own));
  }

  /// The text of some tokens; bytes that make no valid UTF-8 become U+FFFD. Throws InputError for an id
  /// without a token.
  std::string decode(std::span<const std::int32_t> ids, SpecialTokens special = SpecialTokens::keep) const {
    std::string bytes, text;
    for (std::int32_t id : ids) bytes += bytes_of(id, special);
    bytes.erase(0, append_repaired(bytes, text));
    if (!bytes.empty()) append_utf8(0xFFFD, text);
    return text;
  }

  /// The bytes of one token, which may be a part of a character only; none for a special token that is
  /// skipped. Throws InputError for an id without a token.
  std::string_view bytes_of(std::int32_t id, SpecialTokens special = SpecialTokens::keep) const {
    const auto bytes = model_.vocabulary.bytes_of(id);
    if (!bytes)
      throw InputError({.what = "There is no token of this id",
                        .where = "id " + std::to_string(id),
                        .why = "the tokenizer's ids end at " + std::to_string(size() - 1)});
    return special == SpecialTokens::skip && is_special(id) ? std::string_view() : *bytes;
  }

  /// The id of a token as the file spells it: "<|endoftext|>", or "Ġthe" for the bytes of " the".
  std::optional<std::int32_t> id_of(std::string_view token) const { return model_.vocabulary.find(token); }

  /// Whether the token only steers the model and is no text.
  bool is_special(std::int32_t id) const { return model_.vocabulary.is_special(id); }

  /// The highest id + 1.
  std::int32_t size() const { return static_cast<std::int32_t>(model_.vocabulary.id_end()); }

  /// A hash of the file's content (64-bit FNV-1a): tells tokenizers apart across runs and machines.
  std::uint64_t fingerprint() const { return fingerprint_; }

 private:
  /// Memory for one call of encode().
  struct Workspace {
    PreTokenizer::Scratch words = {};
    WordCache cache = {};
    std::string normalized = {};
  };

  /// Workspaces wait here between calls, so that what one call learnt serves the next.
  class Workspaces {
   public:
    std::unique_ptr<Workspace> take() {
      {
        const std::lock_guard lock(mutex_);
        if (!idle_.empty()) {
          auto last = std::move(idle_.back());
          idle_.pop_back();
          return last;
        }
      }
      return std::make_unique<Workspace>();
    }
    void give_back(std::unique_ptr<Workspace> workspace) {
      const std::lock_guard lock(mutex_);
      idle_.push_back(std::move(workspace));
    }

   private:
    std::mutex mutex_;
    std::vector<std::unique_ptr<Workspace>> idle_;
  };

  Tokenizer(const TokenizerJson& file, std::uint64_t fingerprint)
      : model_(read_tokenizer_model(file.object("model"))),
        normalizes_(file.find("normalizer") != nullptr && read_normalizer(file.object("normalizer"))),
        pre_tokenizer_(read_pre_tokenizer(file.object("pre_tokenizer"))),
        added_tokens_(read_added_tokens(file, model_.vocabulary)),
        finder_(tokens_to_find(false)),
        normalized_finder_(tokens_to_find(true)),
        fingerprint_(fingerprint) {
    check_whole_file(file);
  }

  /// The added tokens that are looked for before or after normalisation; special ones win over their doubles.
  std::vector<AddedToken> tokens_to_find(bool normalized) const {
    std::vector<AddedToken> tokens;
    std::string scratch;
    for (bool special : {true, false}) {
      for (AddedToken token : added_tokens_) {
        if (token.normalized != normalized || token.special != special) continue;
        if (normalized && normalizes_) token.content = std::string(nfc(token.content, scratch));
        tokens.push_back(std::move(token));
      }
    }
    return tokens;
  }

  /// Encodes text without added tokens of the kind that is found before normalisation.
  void encode_plain(std::string_view text, Workspace& work, std::vector<std::int32_t>& ids) const {
    if (normalizes_) text = nfc(text, work.normalized);
    const auto on_word = [&](std::string_view word) { encode_word(word, work.cache, ids); };
    normalized_finder_.split(
        text, work.words.regex,
        [&](std::string_view piece) { pre_tokenizer_.for_each_word(piece, work.words, on_word); },
        [&](std::int32_t id) { ids.push_back(id); });
  }

  void encode_word(std::string_view word, WordCache& cache, std::vector<std::int32_t>& ids) const {
    if (const auto known = cache.find(word); !known.empty()) {
      ids.insert(ids.end(), known.begin(), known.end());
      return;
    }
    const std::size_t before = ids.size();
    const auto whole = model_.ignore_merges ? model_.vocabulary.find_bytes(word) : std::nullopt;
    if (whole)
      ids.push_back(*whole);
    else
      model_.bpe.encode(word, ids);
    cache.remember(word, std::span<const std::int32_t>(ids).subspan(before));
  }

  [[noreturn]] static void refuse_bytes(std::string_view text, std::size_t at) {
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    throw InputError(
        {.what = "The text is not valid UTF-8",
         .where = "line " + std::to_string(line),
         .why = "a broken character at byte " + std::to_string(at) + " of " + std::to_string(text.size()),
         .remedy = "convert the text to UTF-8, or remove the broken bytes"});
  }

  static std::uint64_t fingerprint_of(std::string_view content) {
    std::uint64_t hash = 0xCBF29CE484222325u;
    for (char c : content) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
    return hash;
  }

  TokenizerModel model_;
  bool normalizes_;
  PreTokenizer pre_tokenizer_;
  std::vector<AddedToken> added_tokens_;
  AddedTokenFinder finder_;             ///< works on the text as it is
  AddedTokenFinder normalized_finder_;  ///< works on the normalised text
  std::uint64_t fingerprint_;
  std::unique_ptr<Workspaces> workspaces_ = std::make_unique<Workspaces>();
};

}  // namespace parscale::io
