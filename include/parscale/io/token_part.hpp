/// A piece of a text file as tokens, and the form in which it lies on the disk: header, document ends,
/// tokens. All of it is verified when it is read, so that a damaged or outdated file is never taken for data.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "checksum.hpp"
#include "documents.hpp"
#include "file.hpp"
#include "source_stamp.hpp"

namespace parscale::io {

/// What a part was made from. Equal keys mean equal tokens.
struct PartKey {
  std::uint64_t recipe = 0;  ///< hash of the source's path, the tokenizer and the options
  SourceStamp source = {};   ///< state of the source file
  Place begin = {};          ///< where in the source the part begins
  bool operator==(const PartKey&) const = default;
};

/// What a part says about itself.
struct PartDescription {
  PartKey key = {};
  Place end = {};          ///< where in the source the next part begins
  std::uint64_t last = 0;  ///< 1 when the source has nothing after this part
};

namespace detail {

/// The first bytes of a cache file; no padding. `header_crc` is of the header with zero in its place.
struct PartHeader {
  static constexpr std::array<char, 8> right_magic = {'P', 'S', 'T', 'O', 'K', 'E', 'N', 'S'};
  static constexpr std::uint32_t right_version = 1;

  std::array<char, 8> magic = right_magic;
  std::uint32_t version = right_version;
  std::uint32_t header_crc = 0;
  PartDescription description = {};
  std::uint64_t documents = 0;
  std::uint64_t tokens = 0;
  std::uint64_t payload_crc = 0;

  std::uint32_t right_crc() const {
    PartHeader copy = *this;
    copy.header_crc = 0;
    return crc32_of(std::as_bytes(std::span(&copy, 1)));
  }
};
static_assert(std::has_unique_object_representations_v<PartHeader>, "the header must not contain padding");

[[noreturn]] inline void refuse_part(const std::filesystem::path& path, std::string why) {
  throw StorageError(
      {.what = "A file of the token cache cannot be used", .where = path.string(), .why = std::move(why)});
}

inline PartHeader checked_header(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  PartHeader header;
  if (bytes.size() < sizeof header) refuse_part(path, "it is shorter than its header");
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != PartHeader::right_magic) refuse_part(path, "it does not begin as such a file");
  if (header.version != PartHeader::right_version)
    refuse_part(path, "it has format version " + std::to_string(header.version));
  if (header.header_crc != header.right_crc()) refuse_part(path, "the checksum of its header is wrong");
  return header;
}

inline void check_key(const std::filesystem::path& path, const PartKey& found, const PartKey& expected) {
  if (found.source != expected.source) refuse_part(path, "the text file has changed since");
  if (found != expected) refuse_part(path, "it was made by another tokenizer or with other options");
}

inline void check_payload(const std::filesystem::path& path, const PartHeader& header,
                          std::span<const std::byte> payload) {
  const std::uint64_t size = payload.size();
  if (header.documents > size / 8 || header.tokens > size / 4 ||
      header.documents * 8 + header.tokens * 4 != size)
    refuse_part(path, "its length does not fit its header");
  if (header.payload_crc != crc32_of(payload)) refuse_part(path, "the checksum of its tokens is wrong");
}

inline void check_ends(const std::filesystem::path& path, std::span<const std::uint64_t> ends,
                       std::uint64_t tokens) {
  std::uint64_t before = 0;
  for (const std::uint64_t end : ends) {
    if (end <= before) refuse_part(path, "its documents overlap");
    before = end;
  }
  if (before != tokens) refuse_part(path, "its documents do not cover its tokens");
}

}  // namespace detail

/// Tokens of consecutive documents of one file, in memory or in a mapped cache file. Immutable.
class TokenPart {
 public:
  /// `ends`: for each document the number of tokens up to its end.
  TokenPart(const PartDescription& description, std::vector<std::int32_t> tokens,
            std::vector<std::uint64_t> ends)
      : description_(description), own_tokens_(std::move(tokens)), own_ends_(std::move(ends)) {
    tokens_ = own_tokens_;
    ends_ = own_ends_;
  }

  /// Opens a cache file. Throws StorageError when it is damaged or was not made from `expected`, InputError
  /// when it cannot be read.
  TokenPart(const std::filesystem::path& path, const PartKey& expected) : file_(path) {
    const detail::PartHeader header = detail::checked_header(path, file_->bytes());
    detail::check_key(path, header.description.key, expected);
    const std::span<const std::byte> payload = file_->bytes().subspan(sizeof header);
    detail::check_payload(path, header, payload);
    const std::byte* tokens = payload.data() + header.documents * 8;
    description_ = header.description;
    ends_ = {reinterpret_cast<const std::uint64_t*>(payload.data()), header.documents};
    tokens_ = {reinterpret_cast<const std::int32_t*>(tokens), header.tokens};
    detail::check_ends(path, ends_, header.tokens);
  }

  // The spans look into the object's own members.
  TokenPart(const TokenPart&) = delete;
  TokenPart& operator=(const TokenPart&) = delete;

  /// Writes a cache file that opens again, durably. Throws StorageError.
  void write(const std::filesystem::path& path) const {
    detail::PartHeader header{
        .description = description_, .documents = ends_.size(), .tokens = tokens_.size()};
    header.payload_crc = crc32_of(std::as_bytes(tokens_), crc32_of(std::as_bytes(ends_)));
    header.header_crc = header.right_crc();
    OutputFile file(path);
    file.write(std::as_bytes(std::span(&header, 1)));
    file.write(std::as_bytes(ends_));
    file.write(std::as_bytes(tokens_));
    file.close();
  }

  const PartDescription& description() const { return description_; }
  std::span<const std::int32_t> tokens() const { return tokens_; }
  std::size_t documents() const { return ends_.size(); }

  /// The tokens of document i, its end token included.
  std::span<const std::int32_t> document(std::size_t i) const {
    const std::uint64_t begin = i == 0 ? 0 : ends_[i - 1];
    return tokens_.subspan(begin, ends_[i] - begin);
  }

 private:
  PartDescription description_;
  std::vector<std::int32_t> own_tokens_;
  std::vector<std::uint64_t> own_ends_;
  std::optional<MappedFile> file_;
  std::span<const std::int32_t> tokens_;
  std::span<const std::uint64_t> ends_;
};

}  // namespace parscale::io
