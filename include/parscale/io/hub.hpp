/// Models and data sets by name: a path on this machine, or a name of the Hugging Face hub whose files lie in
/// the local cache. Nothing is downloaded; an error says which command would do it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "../core/error.hpp"
#include "file.hpp"

namespace parscale::io {

/// Where the Hugging Face libraries keep what they downloaded: $HF_HUB_CACHE, else $HF_HOME/hub, else
/// $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
inline std::filesystem::path hub_cache() {
  struct Source {
    const char* variable;
    const char* below;
  };
  for (const auto& [variable, below] :
       {Source{"HF_HUB_CACHE", ""}, Source{"HF_HOME", "hub"}, Source{"XDG_CACHE_HOME", "huggingface/hub"},
        Source{"HOME", ".cache/huggingface/hub"}}) {
    const char* value = std::getenv(variable);
    if (value != nullptr && *value != '\0') return *below ? std::filesystem::path(value) / below : value;
  }
  return ".cache/huggingface/hub";
}

namespace detail {

/// A thing of the hub: the name users write and where the cache keeps it.
struct HubName {
  std::string id;  ///< "Qwen/Qwen2-1.5B"
  bool is_dataset = false;

  /// "models--Qwen--Qwen2-1.5B"
  std::string folder() const {
    std::string folder = concat({is_dataset ? "datasets--" : "models--", id});
    if (const auto slash = folder.find('/'); slash != folder.npos) folder.replace(slash, 1, "--");
    return folder;
  }
  std::string download_command() const {
    return concat({"huggingface-cli download ", is_dataset ? "--repo-type dataset " : "", id});
  }
};

/// "name" or "owner/name" in the hub's letters; anything else can only be a path.
inline bool is_hub_id(std::string_view text) {
  const auto is_part = [](std::string_view part) {
    constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    return !part.empty() && part.front() != '.' && part.find_first_not_of(letters) == part.npos &&
           part.find("--") == part.npos && part.find("..") == part.npos;
  };
  const auto slash = text.find('/');
  if (slash == text.npos) return is_part(text);
  return is_part(text.substr(0, slash)) && is_part(text.substr(slash + 1));
}

/// The revision that `main` stood for when it was downloaded; empty when the cache does not say. A download
/// of one certain revision leaves no such note, but then its snapshot is the only one.
inline std::string cached_revision(const std::filesystem::path& repository) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (fs::is_regular_file(repository / "refs" / "main", ignored)) {
    const std::string text = read_file(repository / "refs" / "main");
    const std::string revision = text.substr(0, text.find_first_of(" \t\r\n"));
    return revision.starts_with('.') || revision.find('/') != revision.npos ? "" : revision;
  }
  std::vector<std::string> snapshots;
  for (const auto& entry : fs::directory_iterator(repository / "snapshots", ignored))
    snapshots.push_back(entry.path().filename().string());
  return snapshots.size() == 1 ? snapshots.front() : "";
}

/// The files of a thing in the local cache; nothing when it is not there.
inline std::optional<std::filesystem::path> cached_snapshot(const HubName& name) {
  const auto repository = hub_cache() / name.folder();
  const std::string revision = cached_revision(repository);
  if (revision.empty()) return std::nullopt;
  const auto snapshot = repository / "snapshots" / revision;
  std::error_code ignored;
  if (!std::filesystem::is_directory(snapshot, ignored)) return std::nullopt;
  return snapshot;
}

[[noreturn]] inline void fail_not_cached(const std::string& asked, const HubName& name) {
  throw InputError({.what = concat({"The ", name.is_dataset ? "data set" : "model", " \"", asked,
                                    "\" is neither a path nor in the Hugging Face cache"}),
                    .where = (hub_cache() / name.folder()).string(),
                    .why = "there is no downloaded copy",
                    .remedy = name.download_command()});
}

}  // namespace detail

/// The directory of a model: `name` itself when it is a directory, else the cached copy of a hub name
/// ("Qwen/Qwen2-1.5B", or "Qwen2-1.5B" for short). Throws InputError with the command that downloads it.
inline std::filesystem::path resolve_model(const std::string& name) {
  std::error_code ignored;
  if (std::filesystem::is_directory(name, ignored)) return name;
  if (std::filesystem::exists(name, ignored))
    throw InputError({.what = "A model is a directory, this is a file", .where = name});
  if (!detail::is_hub_id(name))
    throw InputError(
        {.what = "The model's directory does not exist", .where = name, .remedy = "check the spelling"});
  const bool has_owner = name.find('/') != name.npos;
  const detail::HubName full{concat({has_owner ? "" : "Qwen/", name})};
  for (const auto& candidate : {full, detail::HubName{name}}) {
    if (const auto snapshot = detail::cached_snapshot(candidate)) {
      if (std::filesystem::exists(*snapshot / "config.json", ignored)) return *snapshot;
      throw InputError({.what = "The cached copy of a model is incomplete",
                        .where = snapshot->string(),
                        .why = "it has no config.json",
                        .remedy = candidate.download_command()});
    }
  }
  detail::fail_not_cached(name, full);
}

/// The hub's name of a data set: `pajama` and `stack` are short for samples that fit on one machine.
inline std::string dataset_id(const std::string& name) {
  if (name == "pajama") return "togethercomputer/RedPajama-Data-1T-Sample";
  if (name == "stack") return "bigcode/the-stack-smol";
  return name;
}

/// The file or directory of a data set: `name` itself when it exists, else the cached copy of a hub name or
/// of one of the short names. Throws InputError with the command that downloads it.
inline std::filesystem::path resolve_dataset(const std::string& name) {
  std::error_code ignored;
  if (std::filesystem::exists(name, ignored)) return name;
  const detail::HubName hub{dataset_id(name), true};
  if (!detail::is_hub_id(hub.id))
    throw InputError({.what = "The data set does not exist", .where = name, .remedy = "check the spelling"});
  if (const auto snapshot = detail::cached_snapshot(hub)) return *snapshot;
  detail::fail_not_cached(name, hub);
}

}  // namespace parscale::io
