/// The text of a run as batches: the dataset, the tokenizer it is read with, and what is held out.
#pragma once

#include <memory>
#include <parscale/batch.hpp>
#include <parscale/io/dataset.hpp>
#include <parscale/io/tokenizer.hpp>
#include <string>
#include <vector>

#include "common/options.hpp"

namespace parscale::program {

class TrainingData {
 public:
  /// `tokenizer`: its file or directory. `end_token` joins documents. Throws InputError or
  /// ConfigurationError.
  TrainingData(const TrainingOptions& options, const std::filesystem::path& tokenizer,
               std::optional<Token> end_token);

  /// Rows [first, first + count) of the run, a function of (seed, row) alone.
  Batch batch(Index first, Index count) const;
  /// The rows held out, `rows` at a time; the same ones in every evaluation. Throws ConfigurationError when
  /// there are none.
  std::vector<Batch> evaluation(Index rows) const;

  /// What is known of the text so far, for `rows` rows of training.
  std::string summary(Index rows) const;
  /// Tokens that the tokenizer knows.
  Index vocabulary() const { return tokenizer_->size(); }
  /// Tells the text, its tokenizer and the options that decide rows from others.
  std::uint64_t fingerprint() const { return dataset_->fingerprint(); }

 private:
  bool cut_;
  std::unique_ptr<io::Tokenizer> tokenizer_;
  std::unique_ptr<io::Dataset> dataset_;
};

}  // namespace parscale::program
