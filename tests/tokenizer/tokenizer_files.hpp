/// The tokenizers that tests use, and small changed ones.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <parscale/io/json.hpp>
#include <parscale/io/tokenizer.hpp>
#include <string>

namespace parscale::test {

inline const std::filesystem::path source_dir = PARSCALE_SOURCE_DIR;

/// Goldens of the tokenizers in the tree: $PARSCALE_GOLDENS/tokenizer, else the project's own.
inline std::filesystem::path tokenizer_goldens() {
  const char* other = std::getenv("PARSCALE_GOLDENS");
  return std::filesystem::path(other != nullptr ? other : PARSCALE_SOURCE_DIR "/tests/data/goldens") /
         "tokenizer";
}

/// 4096 tokens.
inline const io::Tokenizer& austen() {
  static const auto tokenizer = io::Tokenizer::load(source_dir / "data/austen-bpe4096");
  return tokenizer;
}

inline const io::Tokenizer& qwen() {
  static const auto tokenizer = io::Tokenizer::load(source_dir / "tests/data/qwen2.5/tokenizer.json");
  return tokenizer;
}

inline const std::filesystem::path variants_dir = source_dir / "tests/data/goldens/tokenizer/variants";

/// The small tokenizer that the variants of the goldens start from.
inline const io::Json& base_json() {
  static const io::Json base = io::read_json(variants_dir / "base.json");
  return base;
}

/// The small tokenizer after a change of its file.
inline io::Tokenizer changed(const std::function<void(io::Json&)>& change) {
  io::Json json = base_json();
  change(json);
  return io::Tokenizer::parse(json.dump(), "tokenizer.json");
}

}  // namespace parscale::test
