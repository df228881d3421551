#include "run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "common/console.hpp"
#include "common/fitting.hpp"
#include "common/load_report.hpp"
#include "common/progress.hpp"

namespace parscale::program {
namespace {

void say(const std::string& line) { print_quietly(stdout, line + "\n"); }

Identity identity_of(const Options& options, const io::ModelConfig& config, const BatchPlan& batches,
                     const TrainingData& data) {
  const TrainingOptions& t = options.training;
  return {{"model", io::to_json(config).dump()},
          {"text, tokenizer or seed", fmt::format("{:016x}", data.fingerprint())},
          {"training.cut_documents", t.cut_documents ? "true" : "false"},
          {"training.dtype", t.dtype == Precision::float64 ? "float64" : "float32"},
          {"training.trainable", fmt::format("{}", fmt::join(t.trainable, ","))},
          {"global batch size", std::to_string(batches.global)}};
}

/// An output folder with the remains of another run is not written over by accident.
void check_output(const TrainingOptions& t) {
  if (t.resume_from_checkpoint || t.overwrite_output_dir) return;
  if (!io::find_checkpoints(t.output_dir).empty())
    throw ConfigurationError({.what = "training.output_dir holds checkpoints of an earlier run",
                              .where = t.output_dir,
                              .remedy = "go on with training.resume_from_checkpoint=true, start anew with "
                                        "training.overwrite_output_dir=true, or choose another folder"});
}

void print_model(const Run& run) {
  const Architecture& a = run.config.architecture;
  const Shape& s = run.model->shape();
  std::string crossing;
  if (a.cross_attention != CrossAttention::none)
    crossing = fmt::format(", {} cross-attention in layers {}", name_of(a.cross_attention),
                           fmt::join(s.cross_layers, ","));
  say(fmt::format("model     P = {}, {} layers, hidden {}, {} heads of {}{}; {} parameters, {} trained",
                  a.replicas, s.layers, s.hidden, s.heads, a.head_dim, crossing,
                  write_count(static_cast<double>(run.model->parameters())),
                  write_count(static_cast<double>(run.model->trained()))));
}

void print_text(const Run& run) {
  const TrainingOptions& t = run.options.training;
  const std::string ranks =
      run.ranks.together() ? fmt::format(" on each of {} ranks", run.ranks.world()) : "";
  const double tokens =
      static_cast<double>(t.max_steps * run.batches.global) * static_cast<double>(t.max_length);
  say(fmt::format("text      {}", run.data->summary(t.max_steps * run.batches.global)));
  say(fmt::format("plan      {} steps of {} sequences of {} tokens = {} tokens; {} sequences a pass, {}{}",
                  t.max_steps, run.batches.global, t.max_length, write_count(tokens), run.batches.micro,
                  run.model->device().name, ranks));
}

/// Whether something holds on every rank.
bool all_say(RunRanks& ranks, bool here) {
  const auto answers = ranks.gather(here ? "yes" : "no", "what fits");
  return std::ranges::count(answers, "yes") == std::ssize(answers);
}

/// On a GPU: as little is computed twice as fits, unless the options say.
void choose_recomputation(Run& run) {
  const DeviceReport device = run.model->device();
  if (device.memory == 0) return;
  run.trainer.keep = fitting(*run.model, device,
                             {.trainer = run.trainer,
                              .choose = run.options.training.recompute == Recompute::automatic,
                              .evaluation_rows = evaluation_rows(run.options.training),
                              .everywhere = [&](bool here) { return all_say(run.ranks, here); }});
  say(fmt::format("keeping   training.recompute={}", word_of(run.trainer.keep)));
}

void print_memory(const Run& run) {
  MemoryPlan plan = run.model->plan(run.trainer, evaluation_rows(run.options.training));
  const DeviceReport device = run.model->device();
  if (device.memory > 0)
    plan.lines.push_back({"CUDA and other programs", device.in_use});
  else
    plan.lines.push_back({"program and text", static_cast<std::size_t>(current_memory())});
  std::string lines;
  for (const auto& line : plan.lines)
    lines += fmt::format("{}{} {}", lines.empty() ? "" : ", ", line.what, bytes_text(line.bytes));
  say(fmt::format("memory    {} planned: {}", bytes_text(plan.total()), lines));
}

/// What was resolved from files that each rank has read for itself.
void check_files_agree(const Run& run) {
  run.ranks.check_agreement({{"model", io::to_json(run.config).dump()},
                             {"text, tokenizer or seed", fmt::format("{:016x}", run.data->fingerprint())}});
}

/// A launcher that starts a failed run again has the same words for it as the first time.
Options resuming_when_restarted(Options options, const RunRanks& ranks) {
  TrainingOptions& t = options.training;
  if (ranks.restarted() && !t.resume_from_checkpoint && !t.overwrite_output_dir) {
    t.resume_from_checkpoint.latest = true;
    options.notes.emplace_back("started again after a failure: going on from the newest checkpoint");
  }
  return options;
}

}  // namespace

Run prepare(const Options& given, RunRanks& ranks) {
  const Options options = resuming_when_restarted(given, ranks);
  const TrainingOptions& t = options.training;
  for (const auto& note : options.notes) print_note(note);
  for (const auto& warning : options.warnings) print_warning(warning);
  if (options.is_given("training.sharding") && !ranks.together())
    print_note("training.sharding has no effect in one process");
  if (ranks.first()) check_output(t);
  Start start = start_of(options);
  Run run{.ranks = ranks, .options = options, .config = start.config};
  run.batches = batch_plan(t, ranks.world());
  run.schedule = schedule_of(t);
  run.trainer = trainer_of(t, run.batches);

  const auto end =
      run.config.eos_token_ids.empty() ? std::nullopt : std::optional(run.config.eos_token_ids.front());
  run.tokenizer_files = std::filesystem::is_directory(start.tokenizer) ? tokenizer_files(start.tokenizer)
                                                                       : std::vector{start.tokenizer};
  run.data = std::make_unique<TrainingData>(t, start.tokenizer, end);
  if (run.data->vocabulary() > run.config.shape.vocabulary)
    throw ConfigurationError({.what = "The tokenizer knows more tokens than the model",
                              .where = start.tokenizer.string(),
                              .why = fmt::format("{} tokens, the model's vocabulary has {}",
                                                 run.data->vocabulary(), run.config.shape.vocabulary)});
  check_files_agree(run);
  run.checkpoints =
      std::make_unique<Checkpoints>(t, identity_of(options, run.config, run.batches, *run.data), ranks);
  run.resumed = run.checkpoints->find();

  run.model = plan_model(run.config, ranks.placement(t));
  choose_recomputation(run);
  print_memory(run);
  LoadReport report;
  fill_model(*run.model, {.checkpoint = start.checkpoint, .seed = static_cast<std::uint64_t>(t.seed)},
             report);
  print_load_report(report);
  run.model->train(run.trainer);
  if (run.resumed && !run.resumed->checkpoint.empty()) load_state(*run.model, run.resumed->checkpoint);
  print_model(run);
  print_text(run);
  return run;
}

}  // namespace parscale::program
