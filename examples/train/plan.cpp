#include "plan.hpp"

#include <fmt/format.h>

#include "common/console.hpp"
#include "common/model_files.hpp"
#include "common/placement.hpp"
#include "settings.hpp"

namespace parscale::program {
namespace {

/// What an H100 of 80 GB has left when CUDA and NCCL have taken theirs.
constexpr std::size_t usual_room = std::size_t{775} * (1 << 30) / 10;

constexpr Index usual_host = 8;  ///< ranks of a host, for the hybrid sharding of a plan
constexpr Keep keeps[] = {Keep::everything, Keep::products, Keep::layer_inputs};

void say(const std::string& line) { print_quietly(stdout, line + "\n"); }

/// The plans of one configuration.
class Planner {
 public:
  explicit Planner(const Options& options)
      : options_(options.training),
        config_(start_of(options).config),
        on_gpu_(options_.device == Device::cuda),
        world_(static_cast<int>(*options_.plan_world)) {
    const auto host_ranks = options_.sharding_group_size > 0 ? options_.sharding_group_size : usual_host;
    request_ = {.division = {.world = world_,
                             .sharding = options_.sharding,
                             .deterministic = options_.deterministic,
                             .host_ranks = static_cast<int>(host_ranks),
                             .rounds_gradients = options_.gradient_reduction_dtype == Precision::bfloat16},
                .compute = placement_of(options_).compute,
                .trainer = trainer_of(options_, batch_plan(options_, world_)),
                .evaluation_rows = evaluation_rows(options_)};
  }

  MemoryPlan plan(int world, Keep keep) const {
    PlanRequest request = request_;
    request.division.world = world;
    request.trainer.keep = keep;
    return plan_model(config_, request, on_gpu_);
  }
  std::size_t total(int world, Keep keep) const { return plan(world, keep).total(); }

  void print() const {
    const Architecture& a = config_.architecture;
    const Shape& s = config_.shape;
    say(fmt::format("model     P = {}, {} layers, hidden {}, {} heads of {}", a.replicas, s.layers, s.hidden,
                    s.heads, a.head_dim));
    say(fmt::format("plan      {} on each of {} rank{}, {} sequences of {} tokens a pass",
                    on_gpu_ ? "a GPU" : "the CPU", world_, world_ == 1 ? "" : "s", request_.trainer.sequences,
                    request_.trainer.tokens));
    for (const Keep keep : keeps) print(keep);
    for (const Keep keep : keeps) print_worlds(keep);
    if (on_gpu_)
      for (const Keep keep : keeps) print_smallest(keep);
  }

 private:
  void print(Keep keep) const {
    const MemoryPlan plan = this->plan(world_, keep);
    std::string lines;
    for (const auto& line : plan.lines)
      lines += fmt::format("{}{} {}", lines.empty() ? "" : ", ", line.what, bytes_text(line.bytes));
    say(fmt::format("memory    {} with recompute={}: {}", bytes_text(plan.total()), word_of(keep), lines));
  }
  /// How it goes down as ranks become more.
  void print_worlds(Keep keep) const {
    std::string totals;
    for (int world = 1; world <= std::max(1024, world_); world *= 2)
      totals += fmt::format("{}{} {}", totals.empty() ? "" : ", ", world, bytes_text(total(world, keep)));
    say(fmt::format("ranks     recompute={}: {}", word_of(keep), totals));
  }
  void print_smallest(Keep keep) const {
    int world = 1;
    while (world <= most && total(world, keep) > usual_room) ++world;
    const std::string answer =
        world > most ? "no number of ranks is enough" : fmt::format("{} ranks at least", world);
    say(fmt::format("fits      {} in {} of 80 GB with recompute={}", answer, bytes_text(usual_room),
                    word_of(keep)));
  }

  static constexpr int most = 1024;
  const TrainingOptions& options_;
  io::ModelConfig config_;
  bool on_gpu_;
  int world_;
  PlanRequest request_;
};

}  // namespace

int print_plan(const Options& options) {
  for (const auto& note : options.notes) print_note(note);
  for (const auto& warning : options.warnings) print_warning(warning);
  Planner(options).print();
  return 0;
}

}  // namespace parscale::program
