/// Saving one checkpoint from start to end: room on the disk, files, commit, and the older ones go.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <system_error>

#include "checkpoint_retention.hpp"
#include "checkpoint_writer.hpp"

namespace parscale::io {

/// One checkpoint to save.
struct CheckpointRequest {
  std::filesystem::path parent;  ///< the output directory
  CheckpointName name;           ///< its step, regular or rolling
  std::uint64_t bytes = 0;       ///< room that it needs, about
  Index keep = 0;                ///< save_total_limit; 0 keeps all. Of rolling ones only one is kept
  std::map<std::string, std::string> metadata = {};
};

namespace detail {

inline std::string readable_bytes(std::uint64_t bytes) {
  static constexpr const char* units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  std::uint64_t tenths = bytes * 10;
  for (; tenths >= 10240 && unit < 4; ++unit) tenths /= 1024;
  std::string text = std::to_string(tenths / 10);
  if (unit > 0) text += "." + std::to_string(tenths % 10);
  return text + " " + units[unit];
}

/// How full the disk is; nullopt when the system does not know.
inline std::optional<std::filesystem::space_info> space_of(const std::filesystem::path& directory) {
  std::error_code error;
  const auto space = std::filesystem::space(directory, error);
  if (error || space.capacity == 0) return {};
  return space;
}

/// The same error with how much room was needed and how much there is.
inline StorageError with_room(const Explanation& failure, const CheckpointRequest& request) {
  Explanation e = failure;
  e.what = request.name.text() + " was not saved: " + e.what;
  e.why += (e.why.empty() ? "" : "; ") + readable_bytes(request.bytes) + " are needed";
  if (const auto space = space_of(request.parent))
    e.why += ", " + readable_bytes(space->available) + " are available";
  return StorageError(e);
}

/// Refuses before the disk is filled to the brim: other files (logs, metrics) still want to grow.
inline void require_room(const CheckpointRequest& request) {
  const auto space = space_of(request.parent);
  if (space && space->available < request.bytes)
    throw StorageError({.what = "there is not enough room on the disk",
                        .where = request.parent.string(),
                        .remedy = "free some space there, choose another folder, or keep fewer checkpoints; "
                                  "an old one goes only after the new one is complete"});
}

/// After a save; says what went wrong, if anything.
inline std::string remove_older(const std::filesystem::path& saved, const CheckpointRequest& request) {
  try {
    remove_old_checkpoints(saved, request.name.rolling ? 1 : request.keep);
    return {};
  } catch (const StorageError& error) {
    return "an older checkpoint could not be deleted: " + std::string(error.what());
  }
}

}  // namespace detail

/// What was saved, and what went wrong afterwards with the older ones: the new one is good all the same.
struct SavedCheckpoint {
  std::filesystem::path path;
  std::string warning = {};  ///< empty when all is well
};

/// Saves one checkpoint: `fill(writer)` writes its files, then it is committed and older ones beyond `keep`
/// go. Throws StorageError with how much room was needed and is available; the unfinished
/// directory is gone then, and the older checkpoints are untouched.
template <class Fill>
SavedCheckpoint save_checkpoint(const CheckpointRequest& request, Fill&& fill) {
  SavedCheckpoint saved;
  try {
    detail::create_durably(request.parent);
    detail::require_room(request);
    CheckpointWriter writer(request.parent, request.name);
    fill(writer);
    saved.path = writer.commit(request.metadata);
  } catch (const StorageError& error) {
    throw detail::with_room(error.explanation(), request);
  }
  saved.warning = detail::remove_older(saved.path, request);
  return saved;
}

}  // namespace parscale::io
