/// The tokens of many files as one long stream, of which only as much is made as somebody asks for.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "held_out.hpp"
#include "packed_rows.hpp"
#include "text_files.hpp"
#include "token_cache.hpp"

namespace parscale::io {

/// One side of the text of some files. Remembers how long the parts are that it has seen, so that a later
/// place in the stream is reached without opening what lies before it.
class TokenStream {
 public:
  struct Seen {
    std::size_t files = 0;  ///< files of which at least a part was tokenised or found in the cache
    Index documents = 0;    ///< on this side; of a document cut in two, each side counts its piece
    Index tokens = 0;
  };

  TokenStream(std::vector<TextFile> files, HeldOut held_out, Side side, std::shared_ptr<TokenCache> cache)
      : files_(std::move(files)),
        held_out_(held_out),
        side_(side),
        cache_(std::move(cache)),
        parts_(files_.size()) {}

  /// Joins the files in `order`, leaves out the first `begin` tokens and fills `rows` with what follows.
  /// Returns the length of the whole stream when its end was reached before `rows` was full. Throws
  /// InputError when a file cannot be read or has changed since it was first seen.
  std::optional<Index> copy(std::span<const std::size_t> order, Index begin, PackedRows& rows) {
    Index position = 0;
    for (const std::size_t file : order) {
      for (std::size_t number = 0;; ++number) {
        const KnownPart known = know(file, number);
        if (position + known.tokens > begin) copy_part(file, number, begin - position, rows);
        position += known.tokens;
        if (rows.full()) return std::nullopt;
        if (known.last) break;
      }
    }
    return position;
  }

  std::size_t files() const { return files_.size(); }
  const Seen& seen() const { return seen_; }

 private:
  struct KnownPart {
    PartKey key;
    Place end;
    bool last;
    Index tokens;  // on this side
  };

  KnownPart know(std::size_t file, std::size_t number) {
    std::vector<KnownPart>& parts = parts_[file];
    if (number < parts.size()) return parts[number];
    const auto part = open(file, number == 0 ? Place{} : parts.back().end);
    const PartDescription& description = part->description();
    if (number > 0) check_unchanged(file, parts.back().key.source, description.key.source);
    KnownPart known{description.key, description.end, description.last == 1, 0};
    held_out_.for_each_document(*part, files_[file].name, side_, [&](std::span<const std::int32_t> document) {
      known.tokens += static_cast<Index>(document.size());
      ++seen_.documents;
    });
    seen_.tokens += known.tokens;
    if (number == 0) ++seen_.files;
    parts.push_back(known);
    return known;
  }

  /// Copies a known part without its first `unwanted` tokens (none when negative).
  void copy_part(std::size_t file, std::size_t number, Index unwanted, PackedRows& rows) {
    const PartKey& known = parts_[file][number].key;
    const auto part = open(file, known.begin);
    check_unchanged(file, known.source, part->description().key.source);
    std::size_t left_out = unwanted > 0 ? static_cast<std::size_t>(unwanted) : 0;
    held_out_.for_each_document(*part, files_[file].name, side_, [&](std::span<const std::int32_t> document) {
      const std::size_t skipped = std::min(left_out, document.size());
      left_out -= skipped;
      rows.append(document.subspan(skipped));
    });
  }

  /// The part that was used last is kept: its length is asked for first, its tokens right afterwards.
  std::shared_ptr<const TokenPart> open(std::size_t file, const Place& begin) {
    if (current_ != nullptr && current_file_ == file && current_->description().key.begin == begin)
      return current_;
    current_ = cache_->open(files_[file], begin);
    current_file_ = file;
    return current_;
  }

  void check_unchanged(std::size_t file, const SourceStamp& before, const SourceStamp& now) const {
    if (before == now) return;
    throw InputError({.what = "A file of the data set has changed while it was in use",
                      .where = files_[file].path.string(),
                      .why = "rows made from it before and after would not fit together",
                      .remedy = "start again, and leave the data alone meanwhile"});
  }

  std::vector<TextFile> files_;
  HeldOut held_out_;
  Side side_;
  std::shared_ptr<TokenCache> cache_;
  std::vector<std::vector<KnownPart>> parts_;  // of each file, as far as they were seen
  Seen seen_;
  std::shared_ptr<const TokenPart> current_;
  std::size_t current_file_ = 0;
};

}  // namespace parscale::io
