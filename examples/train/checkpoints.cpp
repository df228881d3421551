#include "checkpoints.hpp"

#include <fmt/format.h>

#include "common/console.hpp"

namespace parscale::program {

Checkpoints::Checkpoints(const TrainingOptions& options, Identity identity, RunRanks& ranks)
    : options_(options), ranks_(ranks), identity_(std::move(identity)) {
  if (ranks.first()) lock_.emplace(options_.output_dir);
}

std::optional<Resumption> Checkpoints::find() {
  if (!options_.resume_from_checkpoint) return std::nullopt;
  Resumption found;
  if (ranks_.first()) found = find_good();
  found.checkpoint = ranks_.gather(found.checkpoint.string(), "the checkpoint to go on from").front();
  if (!found.checkpoint.empty()) found.state = io::read_trainer_state(found.checkpoint);
  return found;
}

Resumption Checkpoints::find_good() const {
  Resumption found;
  const auto use = [&](const io::GoodCheckpoint& good) {
    check_identity(good);
    found.checkpoint = std::filesystem::absolute(good.path);
  };
  const ResumeFrom& from = options_.resume_from_checkpoint;
  if (!from.checkpoint.empty()) {
    use(io::open_checkpoint(from.checkpoint));
    return found;
  }
  const io::Leftovers leftovers = io::tidy_checkpoints(options_.output_dir);
  for (const auto& path : leftovers.removed)
    found.notes.push_back("removed what a kill left unfinished: " + path.string());
  for (const auto& path : leftovers.restored) found.notes.push_back("restored " + path.string());
  const auto latest = io::latest_good_checkpoint(options_.output_dir);
  if (!latest) {
    found.notes.push_back("there is no checkpoint in " + options_.output_dir +
                          " yet: starting from the beginning");
    return found;
  }
  for (const auto& skipped : latest->skipped) found.notes.push_back("passed over " + skipped.text());
  use(latest->checkpoint);
  return found;
}

void Checkpoints::check_identity(const io::GoodCheckpoint& checkpoint) const {
  for (const auto& [key, value] : identity_) {
    const auto saved = checkpoint.manifest.metadata.find(key);
    const std::string was = saved == checkpoint.manifest.metadata.end() ? "not known" : saved->second;
    if (was == value) continue;
    throw ConfigurationError(
        {.what = "The checkpoint belongs to a run with another " + key,
         .where = checkpoint.path.string(),
         .why = "it was " + was + ", now it is " + value,
         .remedy = "resume with the options that the run was started with, or start a new run in "
                   "another training.output_dir"});
  }
}

std::filesystem::path Checkpoints::save(AnyModel& model, const io::TrainerState& state, bool rolling) {
  const io::CheckpointRequest request{.parent = options_.output_dir,
                                      .name = {.step = state.step, .rolling = rolling},
                                      .bytes = state_bytes(model),
                                      .keep = options_.save_total_limit.value_or(0),
                                      .metadata = identity_};
  const io::SavedCheckpoint saved = save_state(model, request, state);
  if (!saved.warning.empty()) print_warning(saved.warning);
  last_save_ = std::chrono::steady_clock::now();
  return saved.path;
}

Due Checkpoints::due(Index step) const {
  if (options_.save_strategy == Strategy::steps && step % options_.save_steps == 0) return Due::regular;
  const std::chrono::duration<double, std::ratio<60>> minutes = std::chrono::steady_clock::now() - last_save_;
  const bool late = options_.resume_every_minutes > 0 && minutes.count() >= options_.resume_every_minutes;
  return late ? Due::rolling : Due::nothing;
}

void Checkpoints::finish() {
  if (ranks_.first()) io::remove_rolling_checkpoints(options_.output_dir);
}

}  // namespace parscale::program
