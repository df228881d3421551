/// A model of any compiled architecture and precision behind one interface: what the programs hold. Which
/// architectures there are is decided when the project is configured (PARSCALE_HEAD_DIMS, PARSCALE_REPLICAS).
#pragma once

#include <memory>
#include <optional>
#include <parscale/batch.hpp>
#include <parscale/generate.hpp>
#include <parscale/io/checkpoint.hpp>
#include <parscale/io/huggingface.hpp>
#include <parscale/train/memory_plan.hpp>
#include <parscale/train/trainer.hpp>
#include <span>
#include <string>
#include <vector>

namespace parscale::program {

/// Computing type of a model on the CPU.
enum class Compute { float32, float64 };

/// Where a model's weights come from: a checkpoint's directory, or a seed alone.
struct WeightSource {
  std::optional<std::filesystem::path> checkpoint = {};
  std::uint64_t seed = 0;  ///< draws everything without a checkpoint, else what the checkpoint lacks
};

/// A model and, when it trains, its trainer.
class AnyModel {
 public:
  virtual ~AnyModel() = default;

  virtual const Shape& shape() const = 0;
  virtual Compute compute() const = 0;
  virtual int threads() const = 0;
  virtual Index parameters() const = 0;

  virtual std::vector<double> logits(const Batch& batch) = 0;  ///< [B,S,V]
  virtual double loss(const Batch& batch) = 0;
  virtual std::vector<std::vector<Token>> generate(const std::vector<std::vector<Token>>& prompts,
                                                   const GenerateOptions& options) = 0;
  virtual void save(const io::ModelConfig& config, const std::filesystem::path& directory,
                    const io::SaveOptions& options) = 0;
  virtual void save_into(const io::ModelConfig& config, const std::filesystem::path& directory,
                         const io::SaveOptions& options) = 0;

  /// What training would take; nothing is allocated.
  virtual MemoryPlan plan(const TrainerOptions& options) const = 0;
  /// Makes room for training. What follows is for a model that trains.
  virtual void train(const TrainerOptions& options) = 0;
  virtual Index trained() const = 0;
  virtual StepResult step(std::span<const Batch> micro_batches, double learning_rate) = 0;
  virtual Index steps() const = 0;
  virtual void resume(Index steps) = 0;

  /// The state of a run, bit for bit: weights and moments (io/training_state.hpp).
  virtual std::uint64_t state_bytes() = 0;
  virtual void save_state(io::CheckpointWriter& checkpoint, const io::TrainerState& state) = 0;
  virtual io::TrainerState load_state(const std::filesystem::path& checkpoint) = 0;
};

/// The signature of every entry of the compiled set.
using OpenCompiled = std::unique_ptr<AnyModel>(const io::ModelConfig&, const WeightSource&, Compute,
                                               int threads, LoadReport&);

/// The model that `config` describes, on the CPU. Throws ConfigurationError for an architecture outside the
/// compiled set, naming the CMake option that adds it; as io::load_model otherwise.
std::unique_ptr<AnyModel> open_model(const io::ModelConfig& config, const WeightSource& source,
                                     Compute compute, int threads, LoadReport& report);

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

}  // namespace parscale::program
