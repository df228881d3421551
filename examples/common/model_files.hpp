/// Models and the state of runs, from files and back.
#pragma once

#include <memory>
#include <optional>
#include <parscale/io/checkpoint.hpp>
#include <parscale/io/huggingface.hpp>
#include <string>
#include <vector>

#include "any_model.hpp"

namespace parscale::program {

/// A checkpoint that exists: its config read and checked.
struct ModelDirectory {
  std::filesystem::path path;
  io::Json json;
  io::ModelConfig config;
};
/// `model` is a directory or a hub name. Throws InputError.
ModelDirectory open_model_directory(const std::string& model);

/// Files of a model directory that belong to its tokenizer.
std::vector<std::filesystem::path> tokenizer_files(const std::filesystem::path& directory);

/// Where a model's weights come from: a checkpoint's directory, or a seed alone.
struct WeightSource {
  std::optional<std::filesystem::path> checkpoint = {};
  std::uint64_t seed = 0;  ///< draws everything without a checkpoint, else what the checkpoint lacks
};

/// The plan of the model that `config` describes. Throws ConfigurationError for an architecture outside the
/// compiled set, naming the CMake option that adds it.
std::unique_ptr<AnyModel> plan_model(const io::ModelConfig& config, const Placement& placement);
/// Takes memory for a planned model's weights and fills them. Throws InputError for a checkpoint that does
/// not fit.
void fill_model(AnyModel& model, const WeightSource& source, LoadReport& report);
/// Both, for a model that only runs. Throws ConfigurationError when the device cannot hold the weights.
std::unique_ptr<AnyModel> open_model(const io::ModelConfig& config, const WeightSource& source,
                                     const Placement& placement, LoadReport& report);

/// The memory that training it would take on one of many processes; nothing is allocated.
MemoryPlan plan_model(const io::ModelConfig& config, const PlanRequest& request, bool on_gpu);

/// A new Hugging Face directory, which replaces one of the same name; or its files into an existing folder.
/// This and what follows is for all processes that share the model, together.
void save_model(AnyModel& model, const io::ModelConfig& config, const std::filesystem::path& directory,
                const io::SaveOptions& options);
void save_model_into(AnyModel& model, const io::ModelConfig& config, const std::filesystem::path& directory,
                     const io::SaveOptions& options);

/// The state of a run, bit for bit: weights, moments and the trainer's (io/training_state.hpp).
std::uint64_t state_bytes(AnyModel& model);
io::SavedCheckpoint save_state(AnyModel& model, const io::CheckpointRequest& request,
                               const io::TrainerState& state);
io::TrainerState load_state(AnyModel& model, const std::filesystem::path& checkpoint);

}  // namespace parscale::program
