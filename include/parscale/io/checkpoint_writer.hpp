/// Writing checkpoints so that a kill at any instant, a full disk or a power cut leaves the new one or the
/// previous one, whole. The order of events is the guarantee:
///
///     checkpoint-20.writing-1/ is made, its files are written and synced, then the manifest, then all synced
///     a previous checkpoint-20 steps aside (still valid), the new one takes its name, synced
///     only now the previous one goes, losing its name before its content
#pragma once

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint_find.hpp"
#include "durable_directory.hpp"

namespace parscale::io {

/// A checkpoint being written. Destroyed without commit(), it takes its unfinished directory away.
class CheckpointWriter {
 public:
  /// Creates the unfinished directory below `parent`, which is created too if needed. Throws StorageError.
  CheckpointWriter(const std::filesystem::path& parent, const CheckpointName& name)
      : directory_(parent / name.text()) {
    manifest_.step = name.step;
    manifest_.written = after_all_in(parent);
  }

  /// Where the files go. Other processes may write theirs here too, and send the entries for add().
  const std::filesystem::path& directory() const noexcept { return directory_.path(); }

  /// Writes one file: `write(path)` must leave it closed and synced, as OutputFile and SafetensorsWriter do.
  template <class Write>
  void write(const std::string& name, Write&& write) {
    const auto path = directory() / name;
    write(path);
    add(entry_of(path));
  }

  /// Lists a file that lies in directory(), closed and synced. Throws ConfigurationError for a name that is
  /// no plain file name or is listed already.
  void add(ManifestEntry entry) {
    const bool twice = std::any_of(manifest_.files.begin(), manifest_.files.end(),
                                   [&](const ManifestEntry& other) { return other.name == entry.name; });
    if (twice || !is_plain_file_name(entry.name))
      throw ConfigurationError({.what = twice ? "A checkpoint cannot hold two files of one name"
                                              : "A checkpoint cannot hold a file of this name",
                                .where = directory_.destination().string(),
                                .why = "\"" + entry.name + "\""});
    manifest_.files.push_back(std::move(entry));
  }

  /// Makes the checkpoint valid and durable and returns its final path. A checkpoint that had the same name
  /// is gone afterwards; a directory of that name that is no checkpoint of ours is kept as `.foreign-<n>`.
  /// Throws StorageError.
  std::filesystem::path commit(std::map<std::string, std::string> metadata = {}) {
    manifest_.metadata = std::move(metadata);
    sync_directory(directory());  // the manifest must not outlive the names of the files that it lists
    OutputFile file(directory() / manifest_name);
    file.write(text_of(manifest_));
    file.close();
    const Verdict previous = detail::read_manifest(directory_.destination());
    const auto aside = directory_.publish(is_ours(previous) ? "replaced" : "foreign");
    if (!aside.empty() && is_ours(previous)) remove_durably(aside, directory_.destination());
    return directory_.destination();
  }

 private:
  /// A damaged checkpoint is still ours to replace; what has no manifest of ours belongs to somebody else.
  static bool is_ours(const Verdict& verdict) {
    if (verdict.good()) return true;
    const Damage damage = verdict.faults.front().damage;
    return damage == Damage::manifest_unreadable || damage == Damage::manifest_altered ||
           damage == Damage::unknown_version;
  }

  /// Now, or a moment after the newest checkpoint beside this one if the clock was set back.
  static Index after_all_in(const std::filesystem::path& parent) {
    using namespace std::chrono;
    Index time = duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
    for (const FoundCheckpoint& other : find_checkpoints(parent))
      if (other.manifest) time = std::max(time, other.manifest->written + 1);
    return time;
  }

  DirectoryInProgress directory_;
  Manifest manifest_;
};

}  // namespace parscale::io
