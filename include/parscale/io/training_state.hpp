/// The state of a training run inside a checkpoint, enough to go on bit for bit:
///
///     model.safetensors      weights
///     optimizer.safetensors  exp_avg.<name> and exp_avg_sq.<name>: AdamW's first and second moments
///     model-rank-0-of-3.safetensors, ...   instead, when three ranks own parts of each tensor
///     trainer_state.json     step, place in the data, and what must not change between start and resume
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "checkpoint_tensors.hpp"
#include "checkpoint_writer.hpp"
#include "json.hpp"

namespace parscale::io {

/// Where a run stands. Sequence j of a run is a function of (seed, j) alone, so one count is the whole place
/// in the data, for any number of processes.
struct TrainerState {
  Index step = 0;                ///< optimiser steps done
  Index sequences_consumed = 0;  ///< rows of the data used up
  Index tokens_consumed = 0;     ///< positions that counted in the loss
  std::uint64_t seed = 0;        ///< the run's seed
  Index global_batch_size = 0;   ///< sequences of one step, over all processes
  std::string options_digest;    ///< of the options that must be the same when the run goes on
  Index metrics_bytes = 0;  ///< length of metrics.jsonl at this step: what follows belongs to a lost future
  double seconds = 0;       ///< time spent training so far

  bool operator==(const TrainerState&) const = default;
};

namespace detail {

/// The one list of trainer_state.json's fields, for writing and for reading.
void each_field(auto&& field, auto& state) {
  field("step", state.step);
  field("sequences_consumed", state.sequences_consumed);
  field("tokens_consumed", state.tokens_consumed);
  field("seed", state.seed);
  field("global_batch_size", state.global_batch_size);
  field("options_digest", state.options_digest);
  field("metrics_bytes", state.metrics_bytes);
  field("seconds", state.seconds);
}

/// Strict: a count is a whole number from 0 up, text is text, seconds are a number.
inline bool assign(std::uint64_t& out, const Json& value) {
  if (value.is_number_unsigned()) out = value.get<std::uint64_t>();
  return value.is_number_unsigned();
}
inline bool assign(Index& out, const Json& value) {
  std::uint64_t count = 0;
  if (!assign(count, value) || count > std::numeric_limits<Index>::max()) return false;
  out = static_cast<Index>(count);
  return true;
}
inline bool assign(std::string& out, const Json& value) {
  if (!value.is_string()) return false;
  out = value.get<std::string>();
  return true;
}
inline bool assign(double& out, const Json& value) {
  if (!value.is_number()) return false;
  out = value.get<double>();
  return out >= 0;
}

[[noreturn]] inline void fail_trainer_state(const std::string& where, std::string why) {
  throw StorageError(
      {.what = "The trainer's state cannot be understood",
       .where = where,
       .why = std::move(why),
       .remedy = "resume with the version of parscale that wrote it, or from another checkpoint"});
}

}  // namespace detail

inline Json to_json(const TrainerState& state) {
  Json json = Json::object();
  detail::each_field([&](const char* name, const auto& value) { json[name] = value; }, state);
  return json;
}

/// Reads exactly what to_json() writes: every field present, no other one, each of its kind. `where` names
/// the file. Throws StorageError that names the field.
inline TrainerState parse_trainer_state(const Json& json, const std::string& where) {
  if (!json.is_object()) detail::fail_trainer_state(where, "it is not a JSON object");
  TrainerState state;
  std::unordered_set<std::string> known;
  detail::each_field(
      [&](const char* name, auto& value) {
        known.insert(name);
        const Json* found = json.find(name);
        if (found == nullptr) detail::fail_trainer_state(where, std::string("\"") + name + "\" is missing");
        if (!detail::assign(value, *found))
          detail::fail_trainer_state(where, std::string("\"") + name + "\" has the value " + shown(*found));
      },
      state);
  for (const auto& [name, value] : json.members())
    if (known.count(name) == 0)
      detail::fail_trainer_state(where, "\"" + name + "\" is unknown to this version");
  return state;
}

/// Tensors of a training run: TrainingTensors<TensorSource<float>> to save, <TensorSink<float>> to restore.
/// Moments carry the names of their weights; only trained tensors have any.
template <class Tensor>
struct TrainingTensors {
  std::vector<Tensor> weights;
  std::vector<Tensor> exp_avg;
  std::vector<Tensor> exp_avg_sq;
};

namespace detail {

/// Both kinds of moments in one list, as they lie in optimizer.safetensors.
template <class Tensor>
std::vector<Tensor> moments(const TrainingTensors<Tensor>& tensors) {
  std::vector<Tensor> all;
  const auto append = [&](const char* prefix, const std::vector<Tensor>& list) {
    for (const Tensor& tensor : list) {
      all.push_back(tensor);
      all.back().name = prefix + tensor.name;
    }
  };
  append("exp_avg.", tensors.exp_avg);
  append("exp_avg_sq.", tensors.exp_avg_sq);
  return all;
}

}  // namespace detail

/// Bytes that the state of a run takes on disk, about (headers are a few per thousand at most).
template <std::floating_point T>
std::uint64_t bytes_of(const TrainingTensors<TensorSource<T>>& tensors) {
  return bytes_of(tensors.weights) + bytes_of(tensors.exp_avg) + bytes_of(tensors.exp_avg_sq);
}

/// Whose tensors they are: rank `rank` of `files` that own parts. With one file the first rank writes for
/// all.
struct PartOwner {
  int rank = 0, files = 1;
};

/// Writes the three files into a checkpoint or, of several ranks, this rank's files. Throws StorageError.
template <class Writer, std::floating_point T>
void write_training_state(Writer& writer, const TrainingTensors<TensorSource<T>>& tensors,
                          const TrainerState& state, const PartOwner& owner = {}) {
  using std::filesystem::path;
  if (owner.rank >= owner.files) return;
  const auto name = [&](const char* stem) { return TensorParts::part_file(stem, owner.rank, owner.files); };
  writer.write(name("model"), [&](const path& p) { write_tensors(p, tensors.weights); });
  writer.write(name("optimizer"), [&](const path& p) { write_tensors(p, detail::moments(tensors)); });
  if (owner.rank == 0)
    writer.write("trainer_state.json", [&](const path& p) { write_json(p, to_json(state)); });
}

/// The small part alone: look at it before the model is built. Throws InputError (no such file, not JSON) or
/// StorageError.
inline TrainerState read_trainer_state(const std::filesystem::path& checkpoint) {
  const auto path = checkpoint / "trainer_state.json";
  return parse_trainer_state(read_json(path), path.string());
}

/// Restores a verified checkpoint into the sinks. Both tensor files are compared with what is wanted before
/// anything is copied: a failed resume leaves the model as it was. Throws ConfigurationError that names the
/// first difference.
template <std::floating_point T>
TrainerState read_training_state(const std::filesystem::path& checkpoint,
                                 const TrainingTensors<TensorSink<T>>& tensors) {
  const TrainerState state = read_trainer_state(checkpoint);
  const TensorParts model(checkpoint, "model");
  const TensorParts optimizer(checkpoint, "optimizer");
  const auto moments = detail::moments(tensors);
  check_tensors(model, tensors.weights);
  check_tensors(optimizer, moments);
  read_tensors(model, tensors.weights);
  read_tensors(optimizer, moments);
  return state;
}

}  // namespace parscale::io
