/// What the options mean for a run: the model to start from, batches, schedule, trainer.
#pragma once

#include <filesystem>
#include <optional>
#include <parscale/io/model_config.hpp>
#include <parscale/train/schedule.hpp>
#include <parscale/train/trainer.hpp>

#include "common/options.hpp"

namespace parscale::program {

/// How a global batch is cut into micro-batches, of which each rank takes its share.
struct BatchPlan {
  Index global = 0;  ///< sequences of one update, over all ranks
  Index micro = 0;   ///< sequences of one forward pass
  Index count() const { return global / micro; }
};
BatchPlan batch_plan(const TrainingOptions& options, Index world);

Schedule schedule_of(const TrainingOptions& options);
TrainerOptions trainer_of(const TrainingOptions& options, const BatchPlan& batches);
/// Rows of an evaluation's batch; 0: there is none between the steps.
Index evaluation_rows(const TrainingOptions& options);
/// The word of training.recompute.
const char* word_of(Keep keep);

/// The config of the model to train, and where its weights and its tokenizer are.
struct Start {
  io::ModelConfig config;
  std::optional<std::filesystem::path> checkpoint;
  std::filesystem::path tokenizer;
};
/// Prints notes and warnings about what the options change.
Start start_of(const Options& options);

}  // namespace parscale::program
