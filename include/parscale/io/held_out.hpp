/// Which tokens are kept away from training, so that evaluation measures what the model has never seen.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "hash.hpp"
#include "token_part.hpp"

namespace parscale::io {

enum class Side { training, held_out };

/// Divides text into a training and a held-out side. The seed has no say in it: runs with different seeds are
/// evaluated on the same text, and none has trained on it.
class HeldOut {
 public:
  /// `fraction` of the tokens, 0 to 1, is held out; `files`: how many files the data set has.
  HeldOut(double fraction, std::size_t files) : fraction_(fraction), many_files_(many(files)) {}

  /// Calls `f` with the tokens of each document, or of the piece of one, that is on `side`.
  /// Of many documents whole ones are held out, chosen by a hash of where they stand; of few (a novel or
  /// three) the last tokens are, which no training row can then touch.
  template <class F>
  void for_each_document(const TokenPart& part, const std::string& file_name, Side side, F f) const {
    if (many_files_ || many(part.documents()))
      whole_documents(part, file_name, side, f);
    else
      pieces(part, side, f);
  }

 private:
  /// Enough for about ten of them to be held out, so that "none at all" practically never happens.
  bool many(std::size_t count) const { return static_cast<double>(count) * fraction_ >= 10; }

  template <class F>
  void whole_documents(const TokenPart& part, const std::string& file_name, Side side, F f) const {
    const std::uint64_t first = part.description().key.begin.document;
    const double threshold = fraction_ * 0x1p53;
    for (std::size_t i = 0; i < part.documents(); ++i) {
      const std::uint64_t hash = Hash().add(file_name).add(first + i).value();
      const bool held_out = static_cast<double>(hash >> 11) < threshold;
      if (held_out == (side == Side::held_out)) f(part.document(i));
    }
  }

  template <class F>
  void pieces(const TokenPart& part, Side side, F f) const {
    const std::size_t all = part.tokens().size();
    const auto cut = all - static_cast<std::size_t>(std::llround(fraction_ * static_cast<double>(all)));
    std::size_t begin = 0;
    for (std::size_t i = 0; i < part.documents(); ++i) {
      const std::span<const std::int32_t> document = part.document(i);
      const std::size_t before = cut <= begin ? 0 : std::min(cut - begin, document.size());
      const auto piece = side == Side::training ? document.first(before) : document.subspan(before);
      if (!piece.empty()) f(piece);
      begin += document.size();
    }
  }

  double fraction_;
  bool many_files_;
};

}  // namespace parscale::io
