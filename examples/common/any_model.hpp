/// A model of any compiled architecture and precision behind one interface: what the programs hold. Which
/// architectures there are is decided when the project is configured (PARSCALE_HEAD_DIMS, PARSCALE_REPLICAS).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <parscale/generate.hpp>
#include <parscale/io/tensor_access.hpp>
#include <parscale/store/ranks.hpp>
#include <parscale/train/memory_plan.hpp>
#include <parscale/train/trainer.hpp>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace parscale::program {

/// Computing type of a model. bfloat16 and tf32 need a GPU, float64 a CPU; sums are float32 at least in all.
enum class Compute { float32, float64, bfloat16, tf32 };

/// Connects the processes that share a model on GPUs: from the CUDA stream that it computes on.
using ConnectGpus = std::function<distributed::Group*(void* stream)>;

/// Where a model computes, in which type, and who shares it.
struct Placement {
  Compute compute = Compute::float32;
  int threads = 0;                ///< on the CPU; 0: one a core
  std::optional<int> gpu = {};    ///< number of the GPU; none: the CPU
  bool many_steps = false;        ///< shapes come again and again: it pays to find their fastest products
  Ranks ranks = {};               ///< on GPUs without their group, which `connect_gpus` gives
  ConnectGpus connect_gpus = {};  ///< none: alone
};

/// The device of a model, for people and for plans.
struct DeviceReport {
  std::string name;                    ///< "2 threads", "NVIDIA H100 80GB HBM3"
  std::size_t memory = 0, in_use = 0;  ///< bytes of a GPU; 0 on the CPU, whose memory is the program's
  double peak_flops = 0;               ///< of products in the model's type, a second; 0 where not known
};

/// A model's tensors on their way to or from files, in the model's own precision.
template <class T>
struct ModelTensors {
  std::vector<io::TensorAccess<T>> weights;
  std::vector<io::TensorAccess<T>> first_moments,
      second_moments;  ///< of what is trained; empty before train()
};
using AnyTensors = std::variant<ModelTensors<float>, ModelTensors<double>>;

/// A model and, when it trains, its trainer. It begins as a plan: until allocate() nothing is taken, and
/// nothing that needs weights may be called.
class AnyModel {
 public:
  virtual ~AnyModel() = default;

  virtual const Shape& shape() const = 0;
  virtual Compute compute() const = 0;
  virtual DeviceReport device() const = 0;
  virtual const Ranks& ranks() const = 0;

  /// What training would take, with evaluations of that many rows between the steps (0: none).
  virtual MemoryPlan plan(const TrainerOptions& options, Index evaluation_rows) const = 0;
  /// How many processes must share the model so that each needs no more than `bytes` to train it; 0: no
  /// number is enough.
  virtual int smallest_world(const TrainerOptions& options, std::size_t bytes) const = 0;
  /// What the weights alone take.
  virtual std::size_t weight_bytes() const = 0;

  /// Takes memory for the weights, which the caller fills at once.
  virtual void allocate() = 0;
  virtual Index parameters() const = 0;

  virtual std::vector<double> logits(const Batch& batch) = 0;  ///< [B,S,V]
  virtual double loss(const Batch& batch) = 0;
  virtual std::vector<std::vector<Token>> generate(const std::vector<std::vector<Token>>& prompts,
                                                   const GenerateOptions& options) = 0;
  virtual void initialise(std::uint64_t seed) = 0;
  virtual AnyTensors tensors() = 0;

  /// Makes room for training. What follows is for a model that trains.
  virtual void train(const TrainerOptions& options) = 0;
  virtual Index trained() const = 0;
  virtual StepResult step(std::span<const Batch> micro_batches, double learning_rate) = 0;
  virtual Index steps() const = 0;
  virtual void resume(Index steps) = 0;
};

/// A run that somebody thinks about: one process of `division`.
struct PlanRequest {
  Division division = {};
  Compute compute = Compute::float32;
  TrainerOptions trainer = {};
  Index evaluation_rows = 0;  ///< as in AnyModel::plan
};

/// What every entry of the compiled set does: a model of this shape, planned; and the plan of one process of
/// many, for which no GPU is needed.
using OpenCompiled = std::unique_ptr<AnyModel>(const Shape&, const Placement&);
using PlanCompiled = MemoryPlan(const Shape&, const PlanRequest&);

}  // namespace parscale::program
