#include "loop.hpp"

#include <fmt/format.h>

#include <cmath>
#include <parscale/train/flops.hpp>

#include "common/chart.hpp"
#include "common/console.hpp"
#include "common/metrics.hpp"
#include "common/progress.hpp"
#include "common/stop_request.hpp"

namespace parscale::program {
namespace {

namespace fs = std::filesystem;

/// The loop's own memory: where the run stands, and its logs.
class Loop {
 public:
  explicit Loop(Run& run)
      : run_(run),
        options_(run.options.training),
        state_(first_state(run)),
        metrics_file_(fs::path(options_.logging_dir.value_or(options_.output_dir)) / "metrics.jsonl"),
        metrics_(open_metrics()),
        progress_({.total_steps = options_.max_steps,
                   .tokens_a_step = run.batches.global * options_.max_length,
                   .first_step = state_.step,
                   .live = !options_.disable_tqdm}),
        flops_a_token_(flops_a_token(run.config.architecture, run.model->shape(), options_.max_length)) {}

  int run() {
    say_where_it_starts();
    io::write_file(fs::path(options_.output_dir) / "training.yaml", to_yaml(run_.options));
    if (options_.eval_on_start && evaluates()) evaluate();
    while (state_.step < options_.max_steps) {
      step();
      if (stop_.arrived()) return stopped();
    }
    finish();
    return 0;
  }

 private:
  static io::TrainerState first_state(const Run& run) {
    if (run.resumed && !run.resumed->checkpoint.empty()) return run.resumed->state;
    const TrainingOptions& t = run.options.training;
    io::TrainerState state;
    state.seed = static_cast<std::uint64_t>(t.data_seed.value_or(t.seed));
    state.global_batch_size = run.batches.global;
    return state;
  }

  MetricsFile open_metrics() const {
    fs::create_directories(metrics_file_.parent_path());
    return state_.step > 0 ? MetricsFile::resume(metrics_file_, state_.step)
                           : MetricsFile::start(metrics_file_);
  }

  bool evaluates() const { return options_.eval_strategy == Strategy::steps; }

  void say_where_it_starts() {
    if (!run_.resumed) return;
    for (const std::string& note : run_.resumed->notes) print_note(note);
    if (state_.step > 0)
      progress_.say(fmt::format("resuming  {} (step {})", run_.resumed->checkpoint.string(), state_.step));
  }

  void step() {
    std::vector<Batch> batches;
    Index counted = 0;
    for (Index i = 0; i < run_.batches.count(); ++i) {
      batches.push_back(
          run_.data->batch(state_.sequences_consumed + i * run_.batches.micro, run_.batches.micro));
      counted += batches.back().counted();
    }
    const double rate = run_.schedule(state_.step);
    const StepResult result = run_.model->step(batches, rate);
    ++state_.step;
    state_.sequences_consumed += run_.batches.global;
    state_.tokens_consumed += counted;
    progress_.advance(state_.step);
    log(result, rate);
    if (evaluates() && (state_.step % options_.eval_steps == 0 || state_.step == options_.max_steps))
      evaluate();
    if (const auto saved = run_.checkpoints->save_when_due(*run_.model, state_)) {
      progress_.say("saved     " + saved->string());
      draw_chart();
    }
    progress_.skip_time();
  }

  void log(const StepResult& result, double rate) {
    const double speed = progress_.tokens_per_second();
    const DeviceReport device = run_.model->device();
    const double mfu = device.peak_flops > 0 ? speed * flops_a_token_ / device.peak_flops : 0;
    const std::uint64_t memory = device.memory > 0 ? device.in_use : peak_memory();
    metrics_.append({{"step", state_.step},
                     {"loss", result.loss},
                     {"grad_norm", result.grad_norm},
                     {"learning_rate", rate},
                     {"tokens", state_.tokens_consumed},
                     {"tokens_per_second", std::round(speed)},
                     {"memory", memory},
                     {"mfu", mfu}});
    const bool first = options_.logging_first_step && state_.step == 1;
    if (!first && state_.step % options_.logging_steps != 0 && state_.step != options_.max_steps) return;
    progress_.log({state_.step, result.loss, result.grad_norm, rate, memory, mfu});
  }

  void evaluate() {
    double sum = 0;
    Index tokens = 0;
    for (const Batch& batch : run_.data->evaluation(options_.per_device_eval_batch_size)) {
      const Index counted = batch.counted();
      if (counted == 0) continue;
      sum += run_.model->loss(batch) * static_cast<double>(counted);
      tokens += counted;
    }
    last_evaluation_ = sum / static_cast<double>(tokens);
    metrics_.append({{"step", state_.step}, {"eval_loss", last_evaluation_}, {"eval_tokens", tokens}});
    progress_.say(fmt::format("evaluated step {}: held-out loss {:.4f}, perplexity {:.2f} over {} tokens",
                              state_.step, last_evaluation_, std::exp(last_evaluation_),
                              write_count(static_cast<double>(tokens))));
  }

  /// A picture is no reason to lose a run.
  void draw_chart() {
    try {
      const std::string name =
          options_.run_name.value_or(fmt::format("P = {}", run_.config.architecture.replicas));
      write_chart(metrics_file_.parent_path() / "loss.svg",
                  {.title = "Training loss", .series = loss_series(metrics_file_, name)});
    } catch (const Error& error) {
      print_warning(error.what());
    }
  }

  int stopped() {
    const auto saved = run_.checkpoints->save_now(*run_.model, state_);
    draw_chart();
    progress_.say(fmt::format("stopped   after step {} by signal {}; saved {}", state_.step, stop_.signal(),
                              saved.string()));
    progress_.say("go on     with the same command and training.resume_from_checkpoint=true");
    return 128 + stop_.signal();
  }

  void finish() {
    draw_chart();
    io::SaveOptions save{.companions = run_.tokenizer_files};
    if (run_.model->compute() == Compute::float64) save.dtype = io::Dtype::f64;
    save_model_into(*run_.model, run_.config, options_.output_dir, save);
    run_.checkpoints->finish();
    progress_.say(fmt::format("finished  {} steps; the model is in {}", state_.step, options_.output_dir));
  }

  Run& run_;
  const TrainingOptions& options_;
  StopRequest stop_;
  io::TrainerState state_;
  fs::path metrics_file_;
  MetricsFile metrics_;
  Progress progress_;
  double flops_a_token_;
  double last_evaluation_ = 0;
};

}  // namespace

int train(Run& run) { return Loop(run).run(); }

}  // namespace parscale::program
