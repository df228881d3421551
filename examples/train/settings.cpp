#include "settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <parscale/io/huggingface.hpp>

#include "common/console.hpp"
#include "common/model_files.hpp"
#include "common/options_model.hpp"

namespace parscale::program {
namespace {

/// The largest part of the global batch that fits the per-device batch, divides it evenly, and leaves the
/// busiest rank with the fewest sequences.
Index micro_batch(Index global, Index most, Index world) {
  const auto busiest = [&](Index micro) { return (global / micro + world - 1) / world * micro; };
  Index best = 1;
  for (Index micro = 2; micro <= std::min(most, global); ++micro)
    if (global % micro == 0 && busiest(micro) <= busiest(best)) best = micro;
  return best;
}

Keep keep_of(Recompute recompute) {
  switch (recompute) {
    case Recompute::layer:
      return Keep::layer_inputs;
    case Recompute::pointwise:
      return Keep::products;
    default:
      return Keep::everything;
  }
}

}  // namespace

BatchPlan batch_plan(const TrainingOptions& t, Index world) {
  const Index global =
      t.global_batch_size.value_or(t.per_device_train_batch_size * t.gradient_accumulation_steps * world);
  const Index micro = t.deterministic ? 1 : micro_batch(global, t.per_device_train_batch_size, world);
  if (micro != t.per_device_train_batch_size && !t.deterministic)
    print_note(fmt::format("{} sequences a pass, so that they divide the global batch of {}", micro, global));
  return {global, micro};
}

Schedule schedule_of(const TrainingOptions& t) {
  return {.kind = t.lr_scheduler_type,
          .peak = t.learning_rate,
          .warmup_steps = t.warmup_steps,
          .max_steps = t.max_steps,
          .decay_steps = t.lr_decay_steps,
          .min_lr_ratio = t.min_lr_ratio};
}

TrainerOptions trainer_of(const TrainingOptions& t, const BatchPlan& batches) {
  std::string patterns;
  for (const std::string& pattern : t.trainable) patterns += (patterns.empty() ? "" : ",") + pattern;
  return {.sequences = batches.micro,
          .tokens = t.max_length,
          .keep = keep_of(t.recompute),
          .adamw = {.beta1 = t.adam_beta1,
                    .beta2 = t.adam_beta2,
                    .epsilon = t.adam_epsilon,
                    .weight_decay = t.weight_decay},
          .max_grad_norm = t.max_grad_norm,
          .trainable = Trainable(patterns),
          .global_sequences = batches.global};
}

Index evaluation_rows(const TrainingOptions& t) {
  return t.eval_strategy == Strategy::steps ? t.per_device_eval_batch_size : Index{0};
}

const char* word_of(Keep keep) {
  return keep == Keep::layer_inputs ? "layer" : keep == Keep::products ? "pointwise" : "none";
}

Start start_of(const Options& options) {
  Start start;
  io::Json base;
  std::string where = "the section model";
  Architecture from{};
  if (options.model) {
    base = *options.model;
  } else {
    const ModelDirectory directory = open_model_directory(options.training.base_model);
    start.checkpoint = directory.path;
    start.tokenizer = directory.path;
    base = directory.json;
    where = (directory.path / "config.json").string();
    from = directory.config.architecture;
  }
  if (options.training.tokenizer) start.tokenizer = *options.training.tokenizer;
  const MergedConfig merged = merge_model_config(options, base);
  for (const auto& note : merged.notes) print_note(note);
  for (const auto& warning : merged.warnings) print_warning(warning);
  start.config = io::parse_model_config(merged.config, where);
  for (const auto& warning : start.config.warnings) print_warning(warning);
  if (start.checkpoint) io::detail::check_convertible(from, start.config.architecture, where);
  return start;
}

}  // namespace parscale::program
