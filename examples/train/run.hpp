/// A training run put together: model, text, optimiser and schedule from the options.
#pragma once

#include <memory>
#include <string>

#include "checkpoints.hpp"
#include "common/model_files.hpp"
#include "common/options.hpp"
#include "data.hpp"
#include "ranks.hpp"
#include "settings.hpp"

namespace parscale::program {

struct Run {
  RunRanks& ranks;
  Options options;
  io::ModelConfig config = {};
  std::vector<std::filesystem::path> tokenizer_files = {};  ///< copied beside the finished model
  std::unique_ptr<AnyModel> model = {};
  std::unique_ptr<TrainingData> data = {};
  std::unique_ptr<Checkpoints> checkpoints = {};
  std::optional<Resumption> resumed = {};
  BatchPlan batches = {};
  TrainerOptions trainer = {};
  Schedule schedule = {};
};

/// Everything up to the first step. Prints notes and warnings, then what will be trained and what it will
/// take.
Run prepare(const Options& options, RunRanks& ranks);

}  // namespace parscale::program
