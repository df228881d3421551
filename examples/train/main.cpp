// parscale-train: trains a parallel-scaled model on text; from a checkpoint or from scratch, and on from
// where it stopped. The way of a run: options -> prepare (model, text, plan) -> train (steps, checkpoints,
// the finished model).
#include "common/console.hpp"
#include "common/options.hpp"
#include "loop.hpp"

int main(int argc, char** argv) {
  using namespace parscale::program;
  return run_main(argc, argv, {.name = "parscale-train", .help = options_help}, [](const auto& words) {
    Run run = prepare(parse_program_options(words));
    return train(run);
  });
}
