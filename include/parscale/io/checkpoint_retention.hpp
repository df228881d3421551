/// Which checkpoints stay and which go: the limit on their number, the rolling one after success, and what a
/// kill left behind. Every removal takes the name away before the content.
#pragma once

#include <filesystem>
#include <system_error>
#include <vector>

#include "checkpoint_find.hpp"
#include "durable_directory.hpp"

namespace parscale::io {

namespace detail {

inline void remove_found(const FoundCheckpoint& found) {
  remove_durably(found.path, found.path.parent_path() / found.named.name.text());
}

}  // namespace detail

/// Deletes the oldest checkpoints beside `saved` until `keep` of its kind (regular or rolling) are left,
/// itself included; 0 keeps all. Only what has a readable manifest of ours is counted or deleted, and a
/// damaged one never takes the place of a good one. Throws StorageError.
inline void remove_old_checkpoints(const std::filesystem::path& saved, Index keep) {
  if (keep <= 0) return;
  const bool rolling = parse_checkpoint_name(saved.filename().string()).value().name.rolling;
  Index kept = 1;
  for (const FoundCheckpoint& found : find_checkpoints(saved.parent_path())) {
    if (found.path.filename() == saved.filename() || !found.manifest) continue;
    if (found.named.name.rolling != rolling || !found.named.state.empty()) continue;
    if (kept >= keep)
      detail::remove_found(found);
    else if (verify_checkpoint(found.path, Depth::sizes).good())
      ++kept;
  }
}

/// Deletes the rolling checkpoint, when the run has succeeded and does not need it any more.
inline void remove_rolling_checkpoints(const std::filesystem::path& parent) {
  for (const FoundCheckpoint& found : find_checkpoints(parent))
    if (found.named.name.rolling && found.manifest) detail::remove_found(found);
}

/// What a kill may leave behind, and what became of it. Tell the user.
struct Leftovers {
  std::vector<std::filesystem::path> removed = {};   ///< unfinished or half-deleted directories
  std::vector<std::filesystem::path> restored = {};  ///< checkpoints that got their name back
};

/// Tidies up below `parent` after a kill: unfinished and half-deleted checkpoints go; one that was caught in
/// the moment of being replaced gets its name back unless its successor is good. Call it at the start of a
/// run, while nobody else writes there. Touches only names that this file gives. Throws StorageError.
inline Leftovers tidy_checkpoints(const std::filesystem::path& parent) {
  Leftovers out;
  for (const auto& [path, named] : detail::named_checkpoints(parent)) {
    if (named.state == "writing" || named.state == "removing") {
      detail::remove_tree(path);
      out.removed.push_back(path);
    } else if (named.state == "replaced") {
      const auto successor = parent / named.name.text();
      if (verify_checkpoint(successor).good()) {
        remove_durably(path, successor);
        out.removed.push_back(path);
      } else if (std::error_code error; !std::filesystem::exists(successor, error) && !error) {
        rename_durably(path, successor);
        out.restored.push_back(successor);
      }
    }
  }
  return out;
}

}  // namespace parscale::io
