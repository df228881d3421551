#include "data.hpp"

#include <fmt/format.h>

#include <parscale/io/hub.hpp>

#include "common/console.hpp"
#include "common/progress.hpp"

namespace parscale::program {
namespace {

/// A data set's own name in the hub's cache, or files, folders and globs as they are.
std::string source_of(const std::string& dataset) {
  const bool is_glob = dataset.find_first_of("*?[") != std::string::npos;
  return is_glob ? dataset : io::resolve_dataset(dataset).string();
}

io::DatasetOptions dataset_options(const TrainingOptions& t) {
  io::DatasetOptions out{.sources = {source_of(t.dataset)},
                         .max_length = t.max_length,
                         .seed = static_cast<std::uint64_t>(t.data_seed.value_or(t.seed)),
                         .eval_fraction = t.eval_fraction};
  if (t.eval_dataset) out.evaluation_sources = {source_of(*t.eval_dataset)};
  if (t.max_eval_samples) out.max_evaluation_rows = *t.max_eval_samples;
  out.cache.text_field = t.text_field;
  out.cache.notice = [](const std::string& text) { print_note(text); };
  return out;
}

/// Rows as one batch; `cut` keeps attention and targets inside documents.
Batch packed(const std::vector<io::Row>& rows, Index length, bool cut) {
  std::vector<Token> ids;
  std::vector<std::int32_t> starts;
  for (const io::Row& row : rows) {
    ids.insert(ids.end(), row.ids.begin(), row.ids.end());
    if (cut) starts.insert(starts.end(), row.starts.begin(), row.starts.end());
  }
  const Index sequences = static_cast<Index>(ids.size()) / length;
  return batch_of(std::move(ids), sequences, std::move(starts));
}

}  // namespace

TrainingData::TrainingData(const TrainingOptions& options, const std::filesystem::path& tokenizer,
                           std::optional<Token> end_token)
    : cut_(options.cut_documents),
      tokenizer_(std::make_unique<io::Tokenizer>(io::Tokenizer::load(tokenizer))) {
  const io::TextEncoder encoder{.encode = [this](std::string_view text) { return tokenizer_->encode(text); },
                                .fingerprint = tokenizer_->fingerprint(),
                                .end_token = end_token};
  dataset_ = std::make_unique<io::Dataset>(dataset_options(options), encoder);
}

Batch TrainingData::batch(Index first, Index count) const {
  std::vector<io::Row> rows;
  for (Index i = 0; i < count; ++i) rows.push_back(dataset_->row(first + i));
  return packed(rows, static_cast<Index>(rows.front().ids.size()), cut_);
}

std::vector<Batch> TrainingData::evaluation(Index rows) const {
  const Index all = dataset_->evaluation_rows();
  if (all == 0)
    throw ConfigurationError({.what = "The held-out text is less than one row",
                              .remedy = "raise training.eval_fraction or lower training.max_length"});
  std::vector<Batch> batches;
  for (Index first = 0; first < all; first += rows) {
    std::vector<io::Row> some;
    for (Index i = first; i < std::min(all, first + rows); ++i) some.push_back(dataset_->evaluation_row(i));
    batches.push_back(packed(some, static_cast<Index>(some.front().ids.size()), cut_));
  }
  return batches;
}

std::string TrainingData::summary(Index rows) const {
  dataset_->row(0);  // tokenises the first file, unless the cache has it: before that only names are known
  const io::DatasetReport report = dataset_->report();
  std::string text = fmt::format("{} file{}", report.files, report.files == 1 ? "" : "s");
  if (report.tokens > 0)
    text += fmt::format(", {} tokens in {} documents{}", write_count(static_cast<double>(report.tokens)),
                        report.documents, report.files_seen < report.files ? " read so far" : "");
  if (const auto epochs = report.epochs(rows)) text += fmt::format(", {:.2f} epochs", *epochs);
  return text;
}

}  // namespace parscale::program
