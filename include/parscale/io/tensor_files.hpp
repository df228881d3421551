/// The tensors of a checkpoint, whether they lie in one safetensors file or in many with an index.
#pragma once

#include <cstddef>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "json.hpp"
#include "safetensors_reader.hpp"

namespace parscale::io {

namespace detail {

inline constexpr const char* single_file_name = "model.safetensors";
inline constexpr const char* index_file_name = "model.safetensors.index.json";

/// The index of a sharded checkpoint: which file holds which tensor. Throws InputError for any other content
/// and for file names that lead out of the directory.
inline std::map<std::string, std::string> read_weight_map(const std::filesystem::path& index) {
  const auto fail = [&](const char* what, const std::string& why) {
    throw InputError({.what = what, .where = index.string(), .why = why});
  };
  const Json json = read_json(index);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    fail("The index of a sharded checkpoint has no weight_map",
         "it must be an object of tensor and file names");
  std::map<std::string, std::string> weight_map;
  for (const auto& [tensor, shard] : json["weight_map"].members()) {
    if (!shard.is_string())
      fail("The index names no file for a tensor", concat({"\"", tensor, "\" is ", shown(shard)}));
    const auto& file = shard.text();
    if (file.empty() || file == "." || file == ".." ||
        file.find_first_of(std::string_view("/\\\0", 3)) != file.npos)
      fail("The index names a file outside its folder",
           concat({"tensor \"", tensor, "\" is said to lie in ", shown(shard)}));
    weight_map.emplace(tensor, file);
  }
  return weight_map;
}

}  // namespace detail

/// All tensors of a checkpoint by name, mapped into memory. Reading is const and may happen on several
/// threads.
class TensorFiles {
 public:
  /// `path` is a safetensors file, or a directory with model.safetensors or else
  /// model.safetensors.index.json. Throws InputError: no checkpoint there, a damaged file, an index and files
  /// that contradict each other.
  explicit TensorFiles(const std::filesystem::path& path) : path_(path) {
    namespace fs = std::filesystem;
    if (!fs::is_directory(path)) {
      open_single(path);
    } else if (fs::exists(path / detail::single_file_name)) {
      open_single(path / detail::single_file_name);
    } else if (fs::exists(path / detail::index_file_name)) {
      open_sharded(path / detail::index_file_name);
    } else {
      fail_without_checkpoint();
    }
  }

  const std::filesystem::path& path() const { return path_; }
  const std::deque<SafetensorsFile>& files() const { return files_; }

  /// Every tensor's name, file by file in the order of the bytes.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const SafetensorsFile& file : files_) {
      for (const TensorInfo& info : file.tensors()) names.push_back(info.name);
    }
    return names;
  }

  /// Null when the checkpoint has no such tensor.
  const TensorInfo* find(std::string_view name) const {
    const auto found = file_of_.find(name);
    return found == file_of_.end() ? nullptr : files_[found->second].find(name);
  }

  /// A whole tensor, converted. Throws InputError when there is none of this name, and as
  /// SafetensorsFile::read().
  template <TensorNumber T>
  void read(std::string_view name, std::span<T> out) const {
    const SafetensorsFile& file = file_with(name);
    file.read(*file.find(name), out);
  }

  /// The `out.size()` elements from `first` on.
  template <TensorNumber T>
  void read_part(std::string_view name, std::size_t first, std::span<T> out) const {
    const SafetensorsFile& file = file_with(name);
    file.read_part(*file.find(name), first, out);
  }

  /// File and tensor, for messages.
  std::string where(std::string_view name) const {
    const SafetensorsFile& file = file_with(name);
    return file.where(*file.find(name));
  }

 private:
  void open_single(const std::filesystem::path& path) { add(path); }

  void open_sharded(const std::filesystem::path& index) {
    const auto weight_map = detail::read_weight_map(index);
    std::set<std::string, std::less<>> shards;
    for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
    for (const std::string& shard : shards) check_shard(add(index.parent_path() / shard), weight_map, shard);
    for (const auto& [tensor, shard] : weight_map) {
      if (!find(tensor)) fail_missing(index, tensor, shard);
    }
  }

  static void check_shard(const SafetensorsFile& file, const std::map<std::string, std::string>& weight_map,
                          const std::string& shard) {
    for (const TensorInfo& info : file.tensors()) {
      const auto entry = weight_map.find(info.name);
      if (entry == weight_map.end())
        throw InputError({.what = "A tensor of the file is missing in the index", .where = file.where(info)});
      if (entry->second != shard)
        throw InputError({.what = "A tensor lies in another file than the index says",
                          .where = file.where(info),
                          .why = concat({"the index places it in ", entry->second})});
    }
  }

  const SafetensorsFile& add(const std::filesystem::path& path) {
    const SafetensorsFile& file = files_.emplace_back(path);
    for (const TensorInfo& info : file.tensors()) file_of_.emplace(info.name, files_.size() - 1);
    return file;
  }

  const SafetensorsFile& file_with(std::string_view name) const {
    const auto found = file_of_.find(name);
    if (found == file_of_.end())
      throw InputError(
          {.what = concat({"The checkpoint has no tensor \"", name, "\""}), .where = path_.string()});
    return files_[found->second];
  }

  [[noreturn]] static void fail_missing(const std::filesystem::path& index, const std::string& tensor,
                                        const std::string& shard) {
    throw InputError({.what = "A tensor of the index is missing in its file",
                      .where = index.string(),
                      .why = concat({"\"", tensor, "\" is not in ", shard})});
  }
  [[noreturn]] void fail_without_checkpoint() const {
    const bool pickled = std::filesystem::exists(path_ / "pytorch_model.bin") ||
                         std::filesystem::exists(path_ / "pytorch_model.bin.index.json");
    throw InputError(
        {.what = "The folder holds no safetensors checkpoint",
         .where = path_.string(),
         .why = pickled ? "it holds pytorch_model.bin, whose format runs code when it is read"
                        : "neither model.safetensors nor model.safetensors.index.json is there",
         .remedy = pickled ? "load it in transformers and save it with safe_serialization=True" : ""});
  }

  std::filesystem::path path_;
  std::deque<SafetensorsFile> files_ = {};
  std::map<std::string, std::size_t, std::less<>> file_of_ = {};  // the place of a tensor's file among them
};

}  // namespace parscale::io
