/// What the tests of text share: made-up text, packed files, an encoder whose tokens are the bytes.
#pragma once

#include <zlib.h>
#include <zstd.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <parscale/io/dataset.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "io/support.hpp"

namespace parscale::test {

/// One gzip member.
inline std::string gzip(std::string_view text) {
  z_stream state{};
  REQUIRE(::deflateInit2(&state, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string packed(::deflateBound(&state, static_cast<uLong>(text.size())), '\0');
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  state.avail_in = static_cast<uInt>(text.size());
  state.next_out = reinterpret_cast<Bytef*>(packed.data());
  state.avail_out = static_cast<uInt>(packed.size());
  REQUIRE(::deflate(&state, Z_FINISH) == Z_STREAM_END);
  packed.resize(state.total_out);
  ::deflateEnd(&state);
  return packed;
}

/// One zstd frame with a checksum.
inline std::string zstd(std::string_view text) {
  ZSTD_CCtx* state = ::ZSTD_createCCtx();
  ::ZSTD_CCtx_setParameter(state, ZSTD_c_checksumFlag, 1);
  std::string packed(::ZSTD_compressBound(text.size()), '\0');
  packed.resize(::ZSTD_compress2(state, packed.data(), packed.size(), text.data(), text.size()));
  ::ZSTD_freeCCtx(state);
  return packed;
}

/// An encoder with a token a byte, which counts what it is asked. Copies share the count.
struct ByteEncoder {
  static constexpr std::int32_t end_token = 1000;
  struct Count {
    int calls = 0;
    std::size_t bytes = 0;
  };
  std::shared_ptr<Count> count = std::make_shared<Count>();

  operator io::TextEncoder() const {
    const auto encode = [counted = count](std::string_view text) {
      ++counted->calls;
      counted->bytes += text.size();
      return std::vector<std::int32_t>(text.begin(), text.end());
    };
    return {.encode = encode, .fingerprint = 7, .end_token = end_token};
  }
};

/// Random lower-case text.
inline std::string letters(std::mt19937_64& random, std::size_t length) {
  std::string text(length, ' ');
  for (char& c : text) c = static_cast<char>('a' + random() % 26);
  return text;
}

/// A .jsonl text of documents with random lengths below `longest` (some of them empty).
inline std::string jsonl(std::mt19937_64& random, int documents, std::size_t longest) {
  std::string lines;
  for (int i = 0; i < documents; ++i)
    lines += "{\"text\": \"" + letters(random, random() % longest) + "\"}\n";
  return lines;
}

/// Options for data in `folder`, with a cache beside it.
inline io::DatasetOptions options_for(const TemporaryDirectory& folder, const std::string& source,
                                      Index max_length) {
  return {.sources = {(folder / source).string()},
          .max_length = max_length,
          .cache = {.folder = folder / "cache"}};
}

inline std::vector<io::Row> rows(const io::Dataset& data, Index begin, Index end) {
  std::vector<io::Row> out;
  for (Index j = begin; j < end; ++j) out.push_back(data.row(j));
  return out;
}

}  // namespace parscale::test

namespace parscale::io {
inline bool operator==(const Row& a, const Row& b) { return a.ids == b.ids && a.starts == b.starts; }
}  // namespace parscale::io
