/// The durable side of a run: checkpoints now and then, going on from one, and the finished model.
#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <parscale/io/directory_lock.hpp>
#include <string>

#include "common/model_files.hpp"
#include "common/options.hpp"
#include "ranks.hpp"

namespace parscale::program {

/// What must be the same when a run goes on: key and value, kept in each checkpoint's manifest.
using Identity = std::map<std::string, std::string>;

/// Where a run goes on. `notes` tells what was tidied or passed over on the way.
struct Resumption {
  std::filesystem::path checkpoint;
  io::TrainerState state;
  std::vector<std::string> notes;
};

/// Which checkpoint a schedule asks for.
enum class Due { nothing, regular, rolling };

/// The output directory belongs to this object alone while it lives; of several ranks, to the first one's.
/// What is not const is for all ranks together.
class Checkpoints {
 public:
  /// Throws ConfigurationError when another run is writing there.
  Checkpoints(const TrainingOptions& options, Identity identity, RunRanks& ranks);

  /// The checkpoint that the options ask to go on from; nothing for a run from the start. Throws StorageError
  /// when it is damaged, ConfigurationError when it belongs to a run with other options.
  std::optional<Resumption> find();

  /// What the schedule says after a step: a regular checkpoint every save_steps, the rolling one every
  /// resume_every_minutes. Clocks differ: the first rank's word counts.
  Due due(Index step) const;
  /// Returns what was saved, for the log. The rolling one is also for when a stop was asked for.
  std::filesystem::path save(AnyModel& model, const io::TrainerState& state, bool rolling);
  /// The run has succeeded: the rolling checkpoint goes.
  void finish();

 private:
  Resumption find_good() const;
  void check_identity(const io::GoodCheckpoint& checkpoint) const;

  TrainingOptions options_;
  RunRanks& ranks_;
  std::optional<io::DirectoryLock> lock_;
  Identity identity_;
  std::chrono::steady_clock::time_point last_save_ = std::chrono::steady_clock::now();
};

}  // namespace parscale::program
