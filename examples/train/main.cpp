// parscale-train: trains a parallel-scaled model on text; from a checkpoint or from scratch, and on from
// where it stopped. The way of a run: options -> ranks (who shares it) -> prepare (model, text, plan) ->
// train (steps, checkpoints, the finished model).
#include "common/console.hpp"
#include "common/options.hpp"
#include "common/placement.hpp"
#include "loop.hpp"
#include "plan.hpp"

namespace {

std::string help() {
  return "Trains a parallel-scaled language model.\n\n"
         "usage: parscale-train [--config FILE] [SECTION.KEY=VALUE | --SECTION.KEY VALUE ...]\n\n"
         "Examples:\n"
         "  CONFIG_FILE=configs/basic.yaml parscale-train parscale.parscale_n=4\n"
         "  parscale-train training.base_model=DIR training.dataset=novel.txt training.max_steps=200\n"
         "  parscale-train training.base_model=DIR parscale.parscale_n=8 training.plan_world=8\n\n" +
         parscale::program::options_help();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace parscale::program;
  return run_main(argc, argv, {.name = "parscale-train", .help = help}, [](const auto& words) {
    const Options options = parse_program_options(words, this_machine());
    if (options.training.plan_world) return print_plan(options);
    RunRanks ranks(options);
    return ranks.run([&] {
      Run run = prepare(options, ranks);
      return train(run);
    });
  });
}
