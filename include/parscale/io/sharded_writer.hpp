/// Writing a checkpoint as one safetensors file or as many with an index, the way Hugging Face names them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "safetensors_writer.hpp"
#include "tensor_files.hpp"

namespace parscale::io {

/// Writes a checkpoint into an existing directory: model.safetensors when all fits into `max_shard_bytes`,
/// else model-00001-of-0000N.safetensors and model.safetensors.index.json. Used as SafetensorsWriter is:
/// tensors first named, then written in that order; a piece lies within one tensor.
class ShardedWriter {
 public:
  /// Throws ConfigurationError for double names, impossible shapes, or a limit of zero.
  ShardedWriter(const std::filesystem::path& directory, std::vector<TensorSpec> specs,
                std::uint64_t max_shard_bytes = 5'000'000'000,
                std::map<std::string, std::string> metadata = {{"format", "pt"}})
      : directory_(directory), metadata_(std::move(metadata)) {
    if (max_shard_bytes == 0)
      throw ConfigurationError({.what = "The largest size of a checkpoint file must not be zero"});
    detail::check_names(specs);
    plan(std::move(specs), max_shard_bytes);
    open_shard();
  }

  /// The next elements, converted to the stored type.
  template <TensorNumber T>
  void write(std::span<const T> values) {
    if (values.empty()) return;
    while (missing_ == 0 && shard_ + 1 < shards_.size()) open_next_shard();
    writer_->write(values);
    missing_ -= values.size();
  }

  /// Checks that every tensor is complete, writes the index, removes what an earlier checkpoint of another
  /// layout left in the directory (readers would prefer it), and makes all of it durable.
  void finish() {
    while (shard_ + 1 < shards_.size()) open_next_shard();
    writer_->finish();
    if (shards_.size() > 1) write_json(directory_ / detail::index_file_name, index());
    remove_stale_files();
    sync_directory(directory_);
  }

  /// The names of the tensor files, in order.
  std::vector<std::string> file_names() const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < shards_.size(); ++i) names.push_back(file_name(i));
    return names;
  }

 private:
  struct Shard {
    std::vector<TensorSpec> specs = {};
    std::uint64_t bytes = 0;
    std::uint64_t elements = 0;
  };

  /// Fills one file after the other; a tensor larger than the limit has a file of its own.
  void plan(std::vector<TensorSpec> specs, std::uint64_t max_shard_bytes) {
    shards_.emplace_back();
    for (TensorSpec& spec : specs) {
      const std::uint64_t bytes = detail::checked_bytes(spec);
      const bool full = bytes > 0 && shards_.back().bytes + bytes > max_shard_bytes;
      if (full && !shards_.back().specs.empty()) shards_.emplace_back();
      Shard& shard = shards_.back();
      shard.bytes += bytes;
      shard.elements += bytes / size_of(spec.dtype);
      shard.specs.push_back(std::move(spec));
    }
  }

  void open_shard() {
    Shard& shard = shards_[shard_];
    missing_ = shard.elements;
    writer_.emplace(directory_ / file_name(shard_), shard.specs, metadata_);
  }

  void open_next_shard() {
    writer_->finish();
    ++shard_;
    open_shard();
  }

  std::string file_name(std::size_t shard) const {
    if (shards_.size() == 1) return detail::single_file_name;
    const auto five_digits = [](std::size_t n) {
      const std::string digits = std::to_string(n);
      return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
    };
    return "model-" + five_digits(shard + 1) + "-of-" + five_digits(shards_.size()) + ".safetensors";
  }

  Json index() const {
    std::uint64_t total = 0;
    Json weight_map = Json::object();
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      total += shards_[i].bytes;
      for (const TensorSpec& spec : shards_[i].specs) weight_map[spec.name] = file_name(i);
    }
    return {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
  }

  static bool is_checkpoint_file(const std::string& name) {
    if (name == detail::single_file_name || name == detail::index_file_name) return true;
    const std::string pattern = "model-00000-of-00000.safetensors";
    return std::equal(name.begin(), name.end(), pattern.begin(), pattern.end(),
                      [](char c, char p) { return p == '0' ? c >= '0' && c <= '9' : c == p; });
  }

  void remove_stale_files() const {
    std::set<std::string> ours;
    for (std::string& name : file_names()) ours.insert(std::move(name));
    if (shards_.size() > 1) ours.insert(detail::index_file_name);
    std::vector<std::filesystem::path> stale;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      const std::string name = entry.path().filename().string();
      if (is_checkpoint_file(name) && !ours.contains(name)) stale.push_back(entry.path());
    }
    for (const auto& path : stale) std::filesystem::remove(path);
  }

  std::filesystem::path directory_;
  std::map<std::string, std::string> metadata_;
  std::vector<Shard> shards_ = {};
  std::size_t shard_ = 0;      // the file that the next elements go to
  std::uint64_t missing_ = 0;  // its elements still to come
  std::optional<SafetensorsWriter> writer_ = {};
};

}  // namespace parscale::io
