/// The run of the crash that began this project: eight ranks, four replicas, a prefix [4,2,48,128] that was
/// sharded on its replica axis, and code that read the number of replicas from the shard's shape.
#pragma once

#include "sharded_run.hpp"

namespace parscale::test {

using CrashedModel = Shared<Architecture{.head_dim = 128, .replicas = 4}, double>;

inline SharedRun crashed_run() {
  SharedRun run{.sequences = 8, .tokens = 3, .steps = 1};
  run.shape.heads = 2;
  run.shape.kv_heads = 2;
  run.shape.prefix_tokens = 48;
  run.shape.cross_layers = {};
  return run;
}

/// On a rank that is a process: trains, and throws NumericError unless the outcome is one process's.
inline void check_crashed_run(distributed::Group& group) {
  const auto one = train_rank<CrashedModel>(crashed_run(), nullptr);
  const auto mine = train_rank<CrashedModel>(crashed_run(), &group);
  double worst = std::abs(mine.losses[0] - one.losses[0]) + std::abs(mine.norms[0] - one.norms[0]);
  for (const auto& [name, values] : one.weights)
    for (std::size_t i = 0; i < values.size(); ++i)
      worst = std::max(worst, std::abs(values[i] - mine.weights.at(name)[i]));
  if (!(worst < 1e-10)) throw NumericError({.what = "Differs by " + std::to_string(worst)});
}

}  // namespace parscale::test
