/// The checkpoints below an output directory: their names, which is the newest, which is the newest that is
/// good. Reading only; nothing is changed on disk.
#pragma once

#include <algorithm>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "checkpoint_verify.hpp"

namespace parscale::io {

/// `checkpoint-20`, or `checkpoint-rolling-20` for the one that is kept between the regular ones.
struct CheckpointName {
  Index step = 0;
  bool rolling = false;

  std::string text() const {
    return std::string("checkpoint-") + (rolling ? "rolling-" : "") + std::to_string(step);
  }
};

/// A name taken apart: `checkpoint-20.replaced-1` is checkpoint 20 in the state `replaced`.
struct CheckpointNameAndState {
  CheckpointName name;
  std::string state;  ///< empty: in place; otherwise as in durable_directory.hpp
};

namespace detail {

/// A number as std::to_string writes it; nullopt for anything else ("007", "1e3", 20 digits).
inline std::optional<Index> plain_number(std::string_view text) {
  Index number = 0;
  if (text.empty() || text.size() > 18) return {};
  for (char c : text) {
    if (c < '0' || c > '9') return {};
    number = number * 10 + (c - '0');
  }
  if (std::to_string(number) != text) return {};
  return number;
}

/// Cuts `prefix` off the front of `text`, if it is there.
inline bool skip(std::string_view& text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace detail

/// Takes a directory's name apart; nullopt for every name that parscale does not give.
inline std::optional<CheckpointNameAndState> parse_checkpoint_name(std::string_view text) {
  CheckpointNameAndState out;
  if (!detail::skip(text, "checkpoint-")) return {};
  out.name.rolling = detail::skip(text, "rolling-");
  const std::size_t dot = std::min(text.find('.'), text.size());
  const auto step = detail::plain_number(text.substr(0, dot));
  if (!step) return {};
  out.name.step = *step;
  if (dot == text.size()) return out;
  text.remove_prefix(dot + 1);
  for (const char* state : {"writing", "replaced", "removing", "foreign"}) {
    if (!detail::skip(text, state)) continue;
    out.state = state;
    if (detail::skip(text, "-") && detail::plain_number(text)) return out;
  }
  return {};
}

/// A directory that is named as a checkpoint. The manifest is absent when it is missing or damaged.
struct FoundCheckpoint {
  std::filesystem::path path;
  CheckpointNameAndState named;
  std::optional<Manifest> manifest;
};

namespace detail {

/// Everything below `directory` that has a name of ours, in whatever state. Empty if there is no such
/// directory. Throws StorageError when it cannot be read.
inline std::vector<std::pair<std::filesystem::path, CheckpointNameAndState>> named_checkpoints(
    const std::filesystem::path& directory) {
  std::vector<std::pair<std::filesystem::path, CheckpointNameAndState>> found;
  const std::filesystem::path path = directory.empty() ? "." : directory;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(path, error), end = decltype(entry){};
       !error && entry != end; entry.increment(error))
    if (auto named = parse_checkpoint_name(entry->path().filename().string()))
      found.emplace_back(entry->path(), std::move(*named));
  if (error && error != std::errc::no_such_file_or_directory)
    throw StorageError({.what = "The checkpoints cannot be listed",
                        .where = directory.string(),
                        .why = error.message(),
                        .remedy = "check that it is a directory that you may read"});
  return found;
}

/// Newest first. One whose manifest is damaged may be the newest: it comes before the others, so that passing
/// over it is reported.
inline bool is_newer(const FoundCheckpoint& a, const FoundCheckpoint& b) {
  const auto age = [](const FoundCheckpoint& c) {
    constexpr Index unknown = std::numeric_limits<Index>::max();
    return std::tuple(c.manifest ? c.manifest->written : unknown, c.named.name.step, c.path.native());
  };
  return age(a) > age(b);
}

}  // namespace detail

/// All checkpoints below `directory`, newest (last written) first, damaged ones included, their content not
/// looked at. Those that a kill left in the moment of being replaced count; unfinished ones do not. Empty if
/// there is no such directory. Throws StorageError when it cannot be read.
inline std::vector<FoundCheckpoint> find_checkpoints(const std::filesystem::path& directory) {
  std::vector<FoundCheckpoint> found;
  for (auto& [path, named] : detail::named_checkpoints(directory))
    if (named.state.empty() || named.state == "replaced")
      found.push_back({path, named, detail::read_manifest(path).manifest});
  std::sort(found.begin(), found.end(), detail::is_newer);
  return found;
}

/// A checkpoint whose every file was compared with its manifest.
struct GoodCheckpoint {
  std::filesystem::path path;
  Manifest manifest;
};

/// The newest good checkpoint, and what had to be passed over to reach it (tell the user).
struct LatestGood {
  struct Skipped {
    std::filesystem::path path;
    Verdict verdict;
    std::string text() const { return path.string() + ": " + verdict.text(); }
  };
  GoodCheckpoint checkpoint;
  std::vector<Skipped> skipped;
};

/// The newest good checkpoint below `directory`; nullopt when there is none at all. Throws StorageError when
/// there are some but all of them are damaged: starting afresh then is the user's decision.
inline std::optional<LatestGood> latest_good_checkpoint(const std::filesystem::path& directory) {
  std::vector<LatestGood::Skipped> skipped;
  for (const FoundCheckpoint& found : find_checkpoints(directory)) {
    Verdict verdict = verify_checkpoint(found.path);
    if (verdict.good()) return LatestGood{{found.path, std::move(*verdict.manifest)}, std::move(skipped)};
    skipped.push_back({found.path, std::move(verdict)});
  }
  if (skipped.empty()) return {};
  std::string list;
  for (const auto& one : skipped) list += (list.empty() ? "" : "\n         ") + one.text();
  throw StorageError({.what = "There are checkpoints, but not one of them is good",
                      .where = directory.string(),
                      .why = list,
                      .remedy = "bring one back from a copy, or move them away to start from the beginning"});
}

/// The checkpoint at this very path, verified. Never falls back to another one. Throws InputError when there
/// is nothing at the path, StorageError when it is damaged.
inline GoodCheckpoint open_checkpoint(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error) && !error)
    throw InputError({.what = "There is no checkpoint here", .where = path.string()});
  Verdict verdict = verify_checkpoint(path);
  if (verdict.good()) return {path, std::move(*verdict.manifest)};
  const bool holds_some =
      verdict.faults.front().damage == Damage::incomplete && !find_checkpoints(path).empty();
  throw StorageError(
      {.what = "This checkpoint cannot be used",
       .where = path.string(),
       .why = verdict.text(),
       .remedy = holds_some ? "name one of the checkpoints inside" : "name another checkpoint"});
}

}  // namespace parscale::io
