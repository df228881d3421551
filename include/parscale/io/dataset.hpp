/// From text files to the rows that a model is trained and evaluated on:
///   find_text_files -> DocumentReader -> TokenCache -> TokenStream -> PackedRows -> Row
/// Row j of a run is a function of (seed, j) and the files alone, so a run is resumed from j and nothing
/// else, on any number of machines.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "hash.hpp"
#include "held_out.hpp"
#include "packed_rows.hpp"
#include "shuffle.hpp"
#include "text_files.hpp"
#include "token_cache.hpp"
#include "token_stream.hpp"

namespace parscale::io {

struct DatasetOptions {
  std::vector<std::string> sources;  ///< files, folders, globs
  Index max_length = 2048;           ///< S, tokens of a row
  std::uint64_t seed = 42;           ///< decides the order of files and rows

  double eval_fraction = 0;  ///< of `sources`, held out from training
  std::vector<std::string> evaluation_sources =
      {};                           ///< if given, evaluation uses these, all of `sources` trains
  Index max_evaluation_rows = 256;  ///< so that evaluation tokenises no more than it needs

  TokenCacheOptions cache = {};
};

/// What is known so far; more becomes known as rows are asked for.
struct DatasetReport {
  std::size_t files = 0;                ///< of the training data
  std::size_t files_seen = 0;           ///< files that rows were made from so far
  Index documents = 0;                  ///< in what was seen, without the held-out part
  Index tokens = 0;                     ///< in what was seen, without the held-out part
  std::optional<Index> rows_per_epoch;  ///< known once all files were seen

  /// How often `rows` rows go through the data, when that is known.
  std::optional<double> epochs(Index rows) const {
    if (!rows_per_epoch) return std::nullopt;
    return static_cast<double>(rows) / static_cast<double>(*rows_per_epoch);
  }
};

/// Rows of tokens. Not for use by several threads at once.
class Dataset {
 public:
  /// Finds the files and reads nothing yet. Throws ConfigurationError for impossible options, InputError when
  /// there is no text file.
  Dataset(DatasetOptions options, const TextEncoder& encoder)
      : options_(checked(std::move(options))),
        training_files_(find_text_files(options_.sources)),
        evaluation_files_(find_text_files(options_.evaluation_sources)),
        encoder_fingerprint_(
            Hash().add(encoder.fingerprint).add(std::to_string(encoder.end_token.value_or(-1))).value()),
        cache_(std::make_shared<TokenCache>(encoder, options_.cache)),
        training_(training_files_, HeldOut(held_out_fraction(), training_files_.size()), Side::training,
                  cache_) {}

  /// Row j of the run, j = 0, 1, 2, ... without end: when the data has been gone through, the next epoch goes
  /// through it in another order. Throws InputError for unreadable text, ConfigurationError when all of the
  /// data is less than one row.
  Row row(Index j) const {
    if (j < 0 || j > std::numeric_limits<Index>::max() / 2 / options_.max_length)
      throw ConfigurationError({.what = "There is no such row", .why = "row " + std::to_string(j)});
    // The first epoch ends where the data turns out to end.
    if (!rows_per_epoch_) load({0, j / window_rows()});
    const Index in_epoch = rows_per_epoch_ ? j % *rows_per_epoch_ : j;
    load({rows_per_epoch_ ? j / *rows_per_epoch_ : 0, in_epoch / window_rows()});
    const auto place = static_cast<std::size_t>(in_epoch % window_rows());
    return window_->rows.row(static_cast<Index>(window_->order[place]));
  }

  /// How many rows evaluation has: 0 when nothing is held out, or less than one row of it.
  Index evaluation_rows() const { return evaluation().rows(); }

  /// Row k of the evaluation, the same for every seed. Throws ConfigurationError when k is not below
  /// evaluation_rows().
  Row evaluation_row(Index k) const {
    if (k < 0 || k >= evaluation_rows())
      throw ConfigurationError(
          {.what = "There is no such evaluation row",
           .why = "row " + std::to_string(k) + " of " + std::to_string(evaluation_rows())});
    return evaluation().row(k);
  }

  DatasetReport report() const {
    return {.files = training_files_.size(),
            .files_seen = training_.seen().files,
            .documents = training_.seen().documents,
            .tokens = training_.seen().tokens,
            .rows_per_epoch = rows_per_epoch_};
  }

  /// Changes when the files (names and sizes), the tokenizer or an option that decides rows changes: a
  /// resumed run compares it.
  std::uint64_t fingerprint() const {
    Hash hash;
    hash.add(encoder_fingerprint_).add(options_.cache.text_field).add(options_.cache.part_bytes);
    hash.add(options_.seed).add(static_cast<std::uint64_t>(options_.max_length));
    hash.add(std::bit_cast<std::uint64_t>(held_out_fraction()));
    for (const TextFile& file : training_files_) hash.add(file.name).add(stamp_of(file.path).bytes);
    return hash.value();
  }

 private:
  struct WindowNumber {
    Index epoch, window;
    bool operator==(const WindowNumber&) const = default;
  };
  /// Rows are shuffled inside windows, so that any row needs only its own window to be tokenised.
  struct Window {
    WindowNumber number;
    PackedRows rows;
    std::vector<std::size_t> order;
  };

  static DatasetOptions checked(DatasetOptions options);

  double held_out_fraction() const {
    return options_.evaluation_sources.empty() ? options_.eval_fraction : 0;
  }

  /// Long rows come in smaller windows: about 8 million tokens make the first one wait, at most.
  Index window_rows() const {
    constexpr Index most_rows = 4096, most_tokens = Index{1} << 23;
    return std::clamp<Index>(most_tokens / options_.max_length, 1, most_rows);
  }

  std::uint64_t key_for(std::string_view purpose, Index epoch, Index window = 0) const {
    return Hash()
        .add(options_.seed)
        .add(purpose)
        .add(static_cast<std::uint64_t>(epoch))
        .add(static_cast<std::uint64_t>(window))
        .value();
  }

  /// Makes a window the current one. When the data ends inside it, the rows of an epoch are known.
  void load(const WindowNumber& wanted) const {
    if (window_ && window_->number == wanted) return;
    const std::vector<std::size_t> files = shuffled(training_files_.size(), key_for("files", wanted.epoch));
    PackedRows rows(options_.max_length, window_rows());
    const Index begin = wanted.window * window_rows() * options_.max_length;
    const std::optional<Index> all_tokens = training_.copy(files, begin, rows);
    if (all_tokens) rows_per_epoch_ = whole_rows(*all_tokens);
    std::vector<std::size_t> order =
        shuffled(static_cast<std::size_t>(rows.rows()), key_for("rows", wanted.epoch, wanted.window));
    window_.emplace(Window{wanted, std::move(rows), std::move(order)});
  }

  /// The rows of an epoch; the tokens behind the last whole one are left out.
  Index whole_rows(Index tokens) const;

  const PackedRows& evaluation() const {
    if (evaluation_) return *evaluation_;
    const bool separate = !evaluation_files_.empty();
    const std::vector<TextFile>& files = separate ? evaluation_files_ : training_files_;
    const HeldOut held_out(separate ? 1.0 : held_out_fraction(), files.size());
    PackedRows rows(options_.max_length, options_.max_evaluation_rows);
    std::vector<std::size_t> as_listed(files.size());
    std::iota(as_listed.begin(), as_listed.end(), std::size_t{0});
    if (separate || held_out_fraction() > 0)
      TokenStream(files, held_out, Side::held_out, cache_).copy(as_listed, 0, rows);
    return evaluation_.emplace(std::move(rows));
  }

  DatasetOptions options_;
  std::vector<TextFile> training_files_, evaluation_files_;
  std::uint64_t encoder_fingerprint_;
  std::shared_ptr<TokenCache> cache_;

  // What has been made so far; none of it changes what a row holds.
  mutable TokenStream training_;
  mutable std::optional<Index> rows_per_epoch_;
  mutable std::optional<Window> window_;
  mutable std::optional<PackedRows> evaluation_;
};

inline DatasetOptions Dataset::checked(DatasetOptions options) {
  const auto require = [](bool holds, const char* rule, const std::string& value) {
    if (!holds) throw ConfigurationError({.what = rule, .why = "it is " + value});
  };
  if (options.sources.empty())
    throw ConfigurationError(
        {.what = "No data set is given", .remedy = "name a file, folder or glob (training.dataset)"});
  require(options.max_length >= 2 && options.max_length <= std::numeric_limits<std::int32_t>::max(),
          "max_length must be a number of tokens between 2 and 2^31 - 1", std::to_string(options.max_length));
  require(options.eval_fraction >= 0 && options.eval_fraction < 1,
          "eval_fraction must be at least 0 and below 1", std::to_string(options.eval_fraction));
  require(options.max_evaluation_rows >= 0 && options.max_evaluation_rows <= Index{1} << 24,
          "max_evaluation_rows must lie between 0 and 2^24", std::to_string(options.max_evaluation_rows));
  return options;
}

inline Index Dataset::whole_rows(Index tokens) const {
  if (tokens >= options_.max_length) return tokens / options_.max_length;
  const std::string where = options_.sources.front() + (options_.sources.size() > 1 ? ", ..." : "");
  if (tokens < 2)
    throw ConfigurationError({.what = "The data set holds no text to train on",
                              .where = where,
                              .why = std::to_string(training_files_.size()) + " files give " +
                                     std::to_string(tokens) + " tokens"});
  throw ConfigurationError(
      {.what = "The data set is shorter than one row of max_length tokens",
       .where = where,
       .why = "it has " + std::to_string(tokens) + " tokens" +
              (held_out_fraction() > 0 ? " to train on" : "") + ", max_length is " +
              std::to_string(options_.max_length),
       .remedy = "give more text, or max_length=" + std::to_string(tokens) + " or less"});
}

}  // namespace parscale::io
