/// Documents joined and cut into rows of equal length.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../config.hpp"

namespace parscale::io {

/// One training sequence of S = max_length tokens.
struct Row {
  std::vector<std::int32_t> ids;     ///< [S]
  std::vector<std::int32_t> starts;  ///< [S] where in this row the token's document starts, for cut_documents
};

/// A run of rows, filled document by document.
class PackedRows {
 public:
  PackedRows(Index row_length, Index capacity)
      : length_(static_cast<std::size_t>(row_length)), limit_(length_ * static_cast<std::size_t>(capacity)) {}

  /// Appends a document, or a piece of one, as far as there is room.
  void append(std::span<const std::int32_t> document) {
    const auto piece = document.first(std::min(document.size(), limit_ - ids_.size()));
    if (piece.empty()) return;
    begins_.push_back(ids_.size());
    ids_.insert(ids_.end(), piece.begin(), piece.end());
  }

  bool full() const { return ids_.size() == limit_; }
  /// Whole rows; what is left behind the last of them is not used.
  Index rows() const { return static_cast<Index>(ids_.size() / length_); }

  Row row(Index k) const {
    const std::size_t begin = static_cast<std::size_t>(k) * length_;
    const std::span<const std::int32_t> ids = std::span(ids_).subspan(begin, length_);
    Row row{.ids = {ids.begin(), ids.end()}, .starts = std::vector<std::int32_t>(length_)};
    auto document = std::upper_bound(begins_.begin(), begins_.end(), begin);
    for (std::size_t start = 0, i = 0; i < length_; ++i) {
      if (document != begins_.end() && *document == begin + i) {
        start = i;
        ++document;
      }
      row.starts[i] = static_cast<std::int32_t>(start);
    }
    return row;
  }

 private:
  std::size_t length_, limit_;
  std::vector<std::int32_t> ids_;
  std::vector<std::size_t> begins_;  // where documents begin in ids_
};

}  // namespace parscale::io
