#include "options_rules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <parscale/core/error.hpp>

#include "options_table.hpp"

namespace parscale::program {
namespace {

[[noreturn]] void contradict(const Options& options, const std::string& key, std::string what,
                             std::string why, std::string remedy) {
  const auto given = options.given.find(key);
  throw ConfigurationError({.what = std::move(what),
                            .where = given == options.given.end() ? key : given->second.where,
                            .why = std::move(why),
                            .remedy = std::move(remedy)});
}

/// Naming layers means wanting cross-attention, unless something later, or in the same breath, says no.
void cross_attention(Options& options) {
  ParscaleOptions& p = options.parscale;
  const std::string layers = "parscale.parscale_cross_attn_layers", enable = "parscale.enable_cross_attn";
  if (p.parscale_cross_attn_layers) {
    std::vector<Index>& list = *p.parscale_cross_attn_layers;
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
  }
  const bool names_layers = p.parscale_cross_attn_layers && !p.parscale_cross_attn_layers->empty();
  if (names_layers && !p.enable_cross_attn && outweighs(options, layers, enable)) {
    p.enable_cross_attn = true;
    options.given[enable] = options.given[layers];
    options.notes.emplace_back(layers + " switches cross-attention on");
  }
}

void building_a_model(Options& options) {
  if (!options.model) return;
  const std::string base = "training.base_model";
  if (outweighs(options, base, "model")) {
    options.model.reset();
    options.notes.emplace_back("the section model has no effect: training.base_model decides");
    return;
  }
  if (options.is_given(base) && !outweighs(options, "model", base))
    contradict(options, base, "A model is either loaded (training.base_model) or built from scratch (model)",
               "both are given", "remove one of the two; model=null drops the section model");
  if (!options.training.tokenizer)
    contradict(options, "training.tokenizer", "A model built from scratch needs training.tokenizer",
               "it is not given", "set training.tokenizer to a tokenizer.json");
}

void output_folder(const Options& options) {
  namespace fs = std::filesystem;
  const TrainingOptions& t = options.training;
  std::error_code ignored;
  if (!options.model && fs::equivalent(t.base_model, t.output_dir, ignored))
    contradict(options, "training.output_dir", "training.output_dir must not be the folder of the base model",
               "the result would replace what it was made from", "choose another folder");
  if (t.overwrite_output_dir && t.resume_from_checkpoint)
    contradict(options, "training.overwrite_output_dir",
               "training.overwrite_output_dir and training.resume_from_checkpoint contradict each other",
               "a run starts anew or goes on", "remove one of the two");
}

/// Asking for anything about evaluation asks for evaluation.
void evaluation(Options& options) {
  TrainingOptions& t = options.training;
  const auto asks = [&](const char* key) { return outweighs(options, key, "training.eval_strategy"); };
  if ((t.eval_steps > 0 && asks("training.eval_steps")) ||
      (t.eval_dataset && asks("training.eval_dataset")) ||
      (t.eval_fraction > 0 && asks("training.eval_fraction")))
    t.eval_strategy = Strategy::steps;
  if (t.eval_steps == 0) t.eval_steps = t.logging_steps;
  if (t.eval_strategy == Strategy::steps && !t.eval_dataset && t.eval_fraction == 0)
    contradict(options, "training.eval_strategy", "There is no text to evaluate on",
               "neither training.eval_dataset nor training.eval_fraction is given",
               "set training.eval_fraction=0.01 to hold out a hundredth of the dataset");
  if (t.eval_dataset && t.eval_fraction > 0) {
    t.eval_fraction = 0;
    options.warnings.emplace_back("training.eval_fraction has no effect: training.eval_dataset is used");
  }
}

void decay(Options& options) {
  TrainingOptions& t = options.training;
  const bool has_stages = t.lr_scheduler_type == ScheduleKind::warmup_stable_decay;
  const bool falls = t.lr_scheduler_type != ScheduleKind::constant &&
                     t.lr_scheduler_type != ScheduleKind::constant_with_warmup;
  if (has_stages && t.lr_decay_steps == 0) t.lr_decay_steps = std::max<Index>(1, t.max_steps / 10);
  if (!has_stages && t.lr_decay_steps > 0)
    options.warnings.emplace_back(
        "training.lr_decay_steps has no effect without lr_scheduler_type=warmup_stable_decay");
  if (!falls && t.min_lr_ratio > 0)
    options.warnings.emplace_back("training.min_lr_ratio has no effect: this learning rate never falls");
  if (has_stages && (t.lr_decay_steps > t.max_steps || t.warmup_steps > t.max_steps - t.lr_decay_steps))
    contradict(options, "training.lr_decay_steps", "Warmup and decay are longer than the run",
               std::to_string(t.warmup_steps) + " + " + std::to_string(t.lr_decay_steps) + " steps of " +
                   std::to_string(t.max_steps),
               "lower training.warmup_steps or training.lr_decay_steps");
}

void sharing(Options& options) {
  const TrainingOptions& t = options.training;
  if (t.deterministic && t.gradient_reduction_dtype != Precision::float32)
    contradict(options, "training.gradient_reduction_dtype",
               "training.deterministic and training.gradient_reduction_dtype=bfloat16 contradict each other",
               "rounded sums depend on the number of processes", "remove one of the two");
  if (t.sharding_group_size > 0 && t.sharding != Sharding::hybrid)
    options.warnings.emplace_back(
        "training.sharding_group_size has no effect without training.sharding=hybrid");
}

void warmup(Options& options) {
  const TrainingOptions& t = options.training;
  if (t.lr_scheduler_type == ScheduleKind::constant) {
    if (options.is_given("training.warmup_steps") && t.warmup_steps > 0)
      options.warnings.emplace_back(
          "training.warmup_steps has no effect: lr_scheduler_type=constant has no warmup");
  } else if (t.warmup_steps >= t.max_steps) {
    const double reached =
        t.learning_rate * static_cast<double>(t.max_steps) / static_cast<double>(t.warmup_steps);
    options.warnings.emplace_back("the warmup of " + std::to_string(t.warmup_steps) +
                                  " steps fills the whole run of " + std::to_string(t.max_steps) +
                                  ": the learning rate ends near " + fmt::format("{:.2g}", reached) +
                                  "; lower training.warmup_steps");
  }
}

void device_and_precision(Options& options, Machine machine) {
  TrainingOptions& t = options.training;
  if (t.plan_world) machine.cuda = machine.plans_cuda;
  if (t.device == Device::cuda && !machine.cuda)
    contradict(options, "training.device", "training.device=cuda is not possible here", machine.why_no_cuda,
               "use training.device=cpu or auto");
  if (t.device == Device::automatic)
    t.device = machine.cuda && t.dtype != Precision::float64 ? Device::cuda : Device::cpu;
  if (t.dtype == Precision::automatic)
    t.dtype = t.device == Device::cuda ? Precision::bfloat16 : Precision::float32;
  const bool on_cpu = t.device == Device::cpu;
  if (!on_cpu && t.dtype == Precision::float64)
    contradict(options, "training.dtype", "training.dtype=float64 is not possible on a GPU",
               "the GPU computes in bfloat16, tf32 or float32", "use training.device=cpu for float64");
  if (!on_cpu || (t.dtype != Precision::bfloat16 && t.dtype != Precision::tf32)) return;
  if (!outweighs(options, "training.bf16", "training.dtype"))
    contradict(options, "training.dtype",
               std::string("training.dtype=") + (t.dtype == Precision::tf32 ? "tf32" : "bfloat16") +
                   " is not possible on the CPU",
               "the CPU computes in float32 or float64", "use training.dtype=float32");
  t.dtype = Precision::float32;
  options.notes.emplace_back("training.bf16 has no effect on the CPU: it computes in float32");
}

/// After device_and_precision(): GPUs and CPUs are connected by different means.
void communicator(const Options& options) {
  const TrainingOptions& t = options.training;
  const bool on_gpus = t.device == Device::cuda, for_gpus = t.communicator == Connector::nccl;
  if (t.communicator == Connector::automatic || on_gpus == for_gpus) return;
  contradict(options, "training.communicator",
             for_gpus ? "training.communicator=nccl is not possible on the CPU"
                      : "training.communicator=tcp or mpi is not possible on GPUs",
             for_gpus ? "NCCL connects GPUs" : "they connect processes on the CPU",
             for_gpus ? "use tcp, mpi or auto" : "use nccl or auto, or training.device=cpu");
}

}  // namespace

void apply_rules(Options& options, Machine machine) {
  cross_attention(options);
  building_a_model(options);
  output_folder(options);
  evaluation(options);
  decay(options);
  sharing(options);
  warmup(options);
  device_and_precision(options, machine);
  communicator(options);
}

}  // namespace parscale::program
