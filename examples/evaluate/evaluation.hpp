/// From text or tokens to a loss.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/model_files.hpp"

namespace parscale::program {

struct Evaluation {
  double loss = 0;   ///< mean next-token cross-entropy in nats
  Index tokens = 0;  ///< positions that were predicted
};

/// The rows of `input_ids` [B,S] of a safetensors file, `rows` at a time. Throws InputError.
std::vector<Batch> batches_of_ids(const std::filesystem::path& file, Index rows);

/// Text as the model's tokenizer sees it: documents joined by the end token, cut into rows of `length`
/// tokens; the last row may be shorter. Throws InputError.
std::vector<Batch> batches_of_text(const std::vector<std::string>& data, const std::string& text_field,
                                   const ModelDirectory& model, Index length, Index rows);

Evaluation evaluate(AnyModel& model, const std::vector<Batch>& batches);

/// The same from the logits, which are written to a safetensors file: `logits` [B,S,V] F32.
Evaluation evaluate_and_dump(AnyModel& model, const std::vector<Batch>& batches,
                             const std::filesystem::path& file);

}  // namespace parscale::program
