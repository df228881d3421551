/// What the checkpoint tests save: a small training state whose every bit follows from its step.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <parscale/io/checkpoint.hpp>

namespace sample {

using parscale::Index;
namespace io = parscale::io;
namespace fs = std::filesystem;

/// A fresh directory that vanishes with the object.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const fs::path& parent = fs::temp_directory_path()) {
    std::string pattern = (parent / "parscale-checkpoint-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    path_ = pattern;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// Where thousands of syncs cost nothing, if there is such a place: a kill leaves the same behind there.
inline fs::path fast_directory() {
  const fs::path memory = "/dev/shm";
  return ::access(memory.c_str(), W_OK | X_OK) == 0 ? memory : fs::temp_directory_path();
}

/// Weights and moments in memory.
struct Run {
  std::vector<float> matrix = std::vector<float>(70'000);  // more than one piece of the safetensors writer
  std::vector<float> vector = std::vector<float>(5);
  std::vector<float> matrix_exp_avg = matrix, matrix_exp_avg_sq = matrix;
  io::TrainerState state = {};

  bool operator==(const Run& other) const { return bits() == other.bits() && state == other.state; }

  /// Every float as its bits, NaN and -0 included.
  std::vector<std::uint32_t> bits() const {
    std::vector<std::uint32_t> out;
    for (const auto* tensor : {&matrix, &vector, &matrix_exp_avg, &matrix_exp_avg_sq}) {
      const std::size_t at = out.size();
      out.resize(at + tensor->size());
      std::memcpy(&out[at], tensor->data(), tensor->size() * sizeof(float));
    }
    return out;
  }
};

/// The run as it stands after `step` steps. The bits are arbitrary: NaNs and infinities too.
inline Run run_at(Index step) {
  Run run;
  auto word = static_cast<std::uint32_t>(step) * 2654435761u + 1;
  for (auto* tensor : {&run.matrix, &run.vector, &run.matrix_exp_avg, &run.matrix_exp_avg_sq})
    for (float& value : *tensor) value = std::bit_cast<float>(word = word * 1664525u + 1013904223u);
  run.state = {.step = step,
               .sequences_consumed = 16 * step,
               .tokens_consumed = 16 * 2048 * step,
               .seed = 0xfedcba9876543210u,
               .global_batch_size = 16,
               .options_digest = "89abcdef",
               .metrics_bytes = 100 * step,
               .seconds = 0.1 * static_cast<double>(step)};
  return run;
}

inline io::TrainingTensors<io::TensorSource<float>> sources(const Run& run) {
  const auto from = [](const char* name, std::vector<Index> extent, const std::vector<float>& data) {
    return io::source_from<float>(name, std::move(extent), data);
  };
  return {.weights = {from("matrix", {700, 100}, run.matrix), from("vector", {5}, run.vector)},
          .exp_avg = {from("matrix", {700, 100}, run.matrix_exp_avg)},
          .exp_avg_sq = {from("matrix", {700, 100}, run.matrix_exp_avg_sq)}};
}

inline io::TrainingTensors<io::TensorSink<float>> sinks(Run& run) {
  const auto into = [](const char* name, std::vector<Index> extent, std::vector<float>& data) {
    return io::sink_into<float>(name, std::move(extent), data);
  };
  return {.weights = {into("matrix", {700, 100}, run.matrix), into("vector", {5}, run.vector)},
          .exp_avg = {into("matrix", {700, 100}, run.matrix_exp_avg)},
          .exp_avg_sq = {into("matrix", {700, 100}, run.matrix_exp_avg_sq)}};
}

struct SaveOptions {
  Index keep = 0;
  bool rolling = false;
  bool say_size = true;  ///< without it, a full disk is met only while writing
};

/// Saves the run as it stands after `step` steps.
inline fs::path save(const fs::path& parent, Index step, SaveOptions options = {}) {
  const Run run = run_at(step);
  const auto tensors = sources(run);
  const auto saved = io::save_checkpoint(
      {.parent = parent,
       .name = {.step = step, .rolling = options.rolling},
       .bytes = options.say_size ? io::bytes_of(tensors) : 0,
       .keep = options.keep,
       .metadata = {{"host", "here"}}},
      [&](io::CheckpointWriter& writer) { io::write_training_state(writer, tensors, run.state); });
  return saved.path;
}

inline Run load(const fs::path& checkpoint) {
  Run run;
  run.state = io::read_training_state(checkpoint, sinks(run));
  return run;
}

/// The step of the newest good checkpoint, after comparing every bit with what was saved; nullopt when there
/// is no checkpoint at all, -1 when its content is wrong.
inline std::optional<Index> good_step(const fs::path& parent) {
  const auto latest = io::latest_good_checkpoint(parent);
  if (!latest) return {};
  const Index step = latest->checkpoint.manifest.step;
  return load(latest->checkpoint.path) == run_at(step) ? step : -1;
}

/// Names of everything in a directory.
inline std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.insert(entry.path().filename().string());
  return names;
}

/// Flips one bit of a file in place.
inline void flip_bit(const fs::path& file, std::uint64_t byte, int bit) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(byte));
  const auto flipped = static_cast<char>(stream.get() ^ (1 << bit));
  stream.seekp(static_cast<std::streamoff>(byte));
  stream.put(flipped);
}

inline void write_text(const fs::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

}  // namespace sample
