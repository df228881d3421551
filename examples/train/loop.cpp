#include "loop.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
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
    if (run_.ranks.first())
      io::write_file(fs::path(options_.output_dir) / "training.yaml", to_yaml(run_.options));
    if (options_.eval_on_start && evaluates()) evaluate();
    while (state_.step < options_.max_steps) {
      step();
      if (stop_signal_ != 0) return stopped();
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

  std::optional<MetricsFile> open_metrics() const {
    if (!run_.ranks.first()) return std::nullopt;
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
    const auto began = std::chrono::steady_clock::now();
    run_.ranks.begin_step(state_.step + 1);
    const std::vector<Batch> batches = own_batches();
    const double rate = run_.schedule(state_.step);
    const StepResult result = run_.model->step(batches, rate);
    ++state_.step;
    state_.sequences_consumed += run_.batches.global;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - began;
    const Told told = tell(seconds.count(), batches);
    state_.tokens_consumed += told.counted;
    stop_signal_ = told.signal;
    progress_.advance(state_.step);
    log(result, rate, told);
    if (evaluates() && (state_.step % options_.eval_steps == 0 || state_.step == options_.max_steps))
      evaluate();
    if (told.due != Due::nothing) {
      const auto saved = run_.checkpoints->save(*run_.model, state_, told.due == Due::rolling);
      progress_.say("saved     " + saved.string());
      run_.ranks.log("saved     " + saved.string());
      draw_chart();
    }
    progress_.skip_time();
  }

  /// This rank's share of the global batch's micro-batches.
  std::vector<Batch> own_batches() const {
    const Stretch own = share_of(run_.batches.count(), run_.ranks.rank(), run_.ranks.world());
    std::vector<Batch> batches;
    for (Index i = own.first; i < own.first + own.count; ++i)
      batches.push_back(
          run_.data->batch(state_.sequences_consumed + i * run_.batches.micro, run_.batches.micro));
    return batches;
  }

  /// What all ranks say of a step, in one exchange.
  struct Told {
    Index counted = 0;                ///< positions of the global batch that counted
    double fastest = 0, slowest = 0;  ///< seconds of a rank
    double memory = 0;                ///< of the rank that has most in use
    double own_seconds = 0;
    int signal = 0;          ///< that came to any of them; 0: none
    Due due = Due::nothing;  ///< by the first rank's clock
  };
  Told tell(double seconds, const std::vector<Batch>& batches) {
    Index counted = 0;
    for (const Batch& batch : batches) counted += batch.counted();
    const double mine[] = {static_cast<double>(counted), seconds, memory_in_use(),
                           static_cast<double>(stop_.signal()),
                           static_cast<double>(run_.checkpoints->due(state_.step))};
    const std::vector<double> all = run_.ranks.gather(mine);
    Told told{.fastest = seconds,
              .slowest = seconds,
              .own_seconds = seconds,
              .due = static_cast<Due>(static_cast<int>(all[4]))};
    for (std::size_t i = 0; i < all.size(); i += std::size(mine)) {
      told.counted += static_cast<Index>(all[i]);
      told.fastest = std::min(told.fastest, all[i + 1]);
      told.slowest = std::max(told.slowest, all[i + 1]);
      told.memory = std::max(told.memory, all[i + 2]);
      told.signal = std::max(told.signal, static_cast<int>(all[i + 3]));
    }
    return told;
  }

  double memory_in_use() const {
    const DeviceReport device = run_.model->device();
    return static_cast<double>(device.memory > 0 ? device.in_use : peak_memory());
  }

  void log(const StepResult& result, double rate, const Told& told) {
    const double speed = progress_.tokens_per_second();
    const double peak_flops = run_.model->device().peak_flops * run_.ranks.world();
    const double mfu = peak_flops > 0 ? speed * flops_a_token_ / peak_flops : 0;
    const auto memory = static_cast<std::uint64_t>(told.memory);
    io::Json line{{"step", state_.step},
                  {"loss", result.loss},
                  {"grad_norm", result.grad_norm},
                  {"learning_rate", rate},
                  {"tokens", state_.tokens_consumed},
                  {"tokens_per_second", std::round(speed)},
                  {"memory", memory},
                  {"mfu", mfu}};
    if (run_.ranks.together()) {
      line["fastest_rank_seconds"] = told.fastest;
      line["slowest_rank_seconds"] = told.slowest;
    }
    record(line);
    const bool first = options_.logging_first_step && state_.step == 1;
    if (!first && state_.step % options_.logging_steps != 0 && state_.step != options_.max_steps) return;
    progress_.log({state_.step, result.loss, result.grad_norm, rate, memory, mfu});
    run_.ranks.log(fmt::format("step {}  loss {:.4f}  {:.3f} s here, {:.3f} to {:.3f} s on all ranks  {}",
                               state_.step, result.loss, told.own_seconds, told.fastest, told.slowest,
                               write_bytes(static_cast<std::uint64_t>(memory_in_use()))));
  }

  void record(const io::Json& line) {
    if (metrics_) metrics_->append(line);
  }

  /// Batches go round the ranks; the sum is taken in the batches' order, whoever has computed them.
  void evaluate() {
    std::vector<Batch> batches = run_.data->evaluation(options_.per_device_eval_batch_size);
    std::erase_if(batches, [](const Batch& batch) { return batch.counted() == 0; });
    const auto world = static_cast<std::size_t>(run_.ranks.world());
    double sum = 0;
    Index tokens = 0;
    for (std::size_t first = 0; first < batches.size(); first += world) {
      const std::size_t own = first + static_cast<std::size_t>(run_.ranks.rank());
      const double loss = run_.model->loss(batches[std::min(own, batches.size() - 1)]);
      const std::vector<double> losses = run_.ranks.gather({&loss, 1});
      for (std::size_t i = first; i < std::min(first + world, batches.size()); ++i) {
        sum += losses[i - first] * static_cast<double>(batches[i].counted());
        tokens += batches[i].counted();
      }
    }
    last_evaluation_ = sum / static_cast<double>(tokens);
    record({{"step", state_.step}, {"eval_loss", last_evaluation_}, {"eval_tokens", tokens}});
    progress_.say(fmt::format("evaluated step {}: held-out loss {:.4f}, perplexity {:.2f} over {} tokens",
                              state_.step, last_evaluation_, std::exp(last_evaluation_),
                              write_count(static_cast<double>(tokens))));
  }

  /// A picture is no reason to lose a run.
  void draw_chart() {
    if (!run_.ranks.first()) return;
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
    const auto saved = run_.checkpoints->save(*run_.model, state_, true);
    draw_chart();
    const std::string line = fmt::format("stopped   after step {} by signal {}; saved {}", state_.step,
                                         stop_signal_, saved.string());
    progress_.say(line);
    run_.ranks.log(line);
    progress_.say("go on     with the same command and training.resume_from_checkpoint=true");
    return 128 + stop_signal_;
  }

  void finish() {
    draw_chart();
    io::SaveOptions save{.companions = run_.tokenizer_files};
    if (run_.model->compute() == Compute::float64) save.dtype = io::Dtype::f64;
    save_model_into(*run_.model, run_.config, options_.output_dir, save);
    run_.checkpoints->finish();
    const std::string line =
        fmt::format("finished  {} steps; the model is in {}", state_.step, options_.output_dir);
    progress_.say(line);
    run_.ranks.log(line);
  }

  Run& run_;
  const TrainingOptions& options_;
  StopRequest stop_;
  io::TrainerState state_;
  fs::path metrics_file_;
  std::optional<MetricsFile> metrics_;
  Progress progress_;
  double flops_a_token_;
  double last_evaluation_ = 0;
  int stop_signal_ = 0;
};

}  // namespace

int train(Run& run) { return Loop(run).run(); }

}  // namespace parscale::program
