/// A training run put together: model, text, optimiser and schedule from the options.
#pragma once

#include <memory>
#include <string>

#include "checkpoints.hpp"
#include "common/model_files.hpp"
#include "common/options.hpp"
#include "data.hpp"
#include "ranks.hpp"

namespace parscale::program {

/// How a global batch is cut into micro-batches, of which each rank takes its share.
struct BatchPlan {
  Index global = 0;  ///< sequences of one update, over all ranks
  Index micro = 0;   ///< sequences of one forward pass
  Index count() const { return global / micro; }
};

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
