#include "evaluation.hpp"

#include <algorithm>
#include <cmath>
#include <parscale/io/documents.hpp>
#include <parscale/io/tokenizer.hpp>

namespace parscale::program {
namespace {

/// `ids` cut into rows of `length`, `rows` at a time; a shorter last row is a batch of its own.
std::vector<Batch> rows_of(const std::vector<Token>& ids, Index length, Index rows) {
  std::vector<Batch> batches;
  const Index total = static_cast<Index>(ids.size());
  const auto add = [&](Index first, Index count, Index sequences) {
    if (count >= 2)
      batches.push_back(batch_of({ids.begin() + first, ids.begin() + first + count}, sequences));
  };
  Index first = 0;
  for (; first + length <= total; first += length * std::min(rows, (total - first) / length)) {
    const Index full = std::min(rows, (total - first) / length);
    add(first, full * length, full);
  }
  add(first, total - first, 1);
  return batches;
}

/// Cross-entropy of one position in nats.
double cross_entropy(std::span<const double> logits, Token target) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double logit : logits) sum += std::exp(logit - top);
  return top + std::log(sum) - logits[static_cast<std::size_t>(target)];
}

/// A mean over batches of different sizes.
class Mean {
 public:
  void add(double sum, Index tokens) {
    sum_ += sum;
    tokens_ += tokens;
  }
  Evaluation result() const {
    if (tokens_ == 0)
      throw InputError({.what = "There is no token to predict", .why = "a row needs two tokens at least"});
    return {sum_ / static_cast<double>(tokens_), tokens_};
  }

 private:
  double sum_ = 0;
  Index tokens_ = 0;
};

}  // namespace

std::vector<Batch> batches_of_ids(const std::filesystem::path& path, Index rows) {
  const io::SafetensorsFile file(path);
  const io::TensorInfo* info = file.find("input_ids");
  if (info == nullptr || info->shape.size() != 2 || info->count() == 0)
    throw InputError(
        {.what = "The file has no tensor `input_ids` [B,S] of token ids", .where = path.string()});
  std::vector<std::int64_t> wide(info->count());
  file.read(*info, std::span<std::int64_t>(wide));
  for (std::int64_t id : wide)
    if (id < 0 || id > std::numeric_limits<Token>::max())
      throw InputError(
          {.what = "A token id is out of range", .where = file.where(*info), .why = std::to_string(id)});
  const Index sequences = info->shape[0], tokens = info->shape[1];
  std::vector<Batch> batches;
  for (Index first = 0; first < sequences; first += rows) {
    const Index count = std::min(rows, sequences - first);
    batches.push_back(
        batch_of({wide.begin() + first * tokens, wide.begin() + (first + count) * tokens}, count));
  }
  return batches;
}

std::vector<Batch> batches_of_text(const std::vector<std::string>& data, const std::string& text_field,
                                   const ModelDirectory& model, Index length, Index rows) {
  const io::Tokenizer tokenizer = io::Tokenizer::load(model.path);
  std::vector<Token> ids;
  std::string text;
  for (const io::TextFile& file : io::find_text_files(data)) {
    io::DocumentReader documents(file, text_field);
    while (documents.next(text)) {
      tokenizer.encode(text, ids);
      if (!model.config.eos_token_ids.empty()) ids.push_back(model.config.eos_token_ids.front());
    }
  }
  return rows_of(ids, length, rows);
}

Evaluation evaluate(AnyModel& model, const std::vector<Batch>& batches) {
  Mean mean;
  for (const Batch& batch : batches)
    if (const Index tokens = batch.counted(); tokens > 0)
      mean.add(model.loss(batch) * static_cast<double>(tokens), tokens);
  return mean.result();
}

Evaluation evaluate_and_dump(AnyModel& model, const std::vector<Batch>& batches,
                             const std::filesystem::path& file) {
  Index sequences = 0;
  for (const Batch& batch : batches) sequences += batch.sequences;
  const Index tokens = batches.front().tokens, vocabulary = model.shape().vocabulary;
  io::SafetensorsWriter writer(file, {{"logits", io::Dtype::f32, {sequences, tokens, vocabulary}}});
  Mean mean;
  for (const Batch& batch : batches) {
    const auto logits = model.logits(batch);
    writer.write(std::span<const double>(logits));
    for (std::size_t i = 0; i < batch.targets.size(); ++i) {
      const auto v = static_cast<std::size_t>(vocabulary);
      if (batch.targets[i] >= 0)
        mean.add(cross_entropy(std::span(logits).subspan(i * v, v), batch.targets[i]), 1);
    }
  }
  writer.finish();
  return mean.result();
}

}  // namespace parscale::program
