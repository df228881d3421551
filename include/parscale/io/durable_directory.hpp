/// Directories that appear, are replaced and vanish as a whole, whatever happens in between: a kill, a full
/// disk, a power cut. Work in progress has a name of its own beside the final one,
///
///     checkpoint-20               the directory itself
///     checkpoint-20.writing-1     being filled, not valid yet
///     checkpoint-20.replaced-1    the previous one, while its successor takes the name
///     checkpoint-20.removing-1    being deleted, not valid any more
///
/// and every change of meaning is one rename(2) followed by an fsync of the parent.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "file.hpp"

namespace parscale::io {

namespace detail {

/// `<directory>.<state>-<number>`
inline std::filesystem::path beside(const std::filesystem::path& directory, std::string_view state,
                                    int number) {
  std::filesystem::path name = directory;
  name += "." + std::string(state) + "-" + std::to_string(number);
  return name;
}

/// Creates a directory and its missing parents, each made durable in the one above it.
inline void create_durably(const std::filesystem::path& directory) {
  std::error_code error;
  if (directory.empty() || std::filesystem::is_directory(directory, error)) return;
  create_durably(directory.parent_path());
  if (::mkdir(directory.c_str(), 0777) != 0 && errno != EEXIST) fail_to_write(directory, errno);
  sync_directory(directory.parent_path());
}

inline void remove_tree(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::remove_all(directory, error);
  if (error) fail_to_write(directory, error.value());
}

}  // namespace detail

/// Renames and makes the new name durable. Both names lie in the same directory. Throws StorageError.
inline void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) detail::fail_to_write(from, errno);
  sync_directory(to.parent_path());
}

/// Renames `directory` to the first free `<as>.<state>-<n>`, durably, and returns that name.
inline std::filesystem::path rename_aside(const std::filesystem::path& directory,
                                          const std::filesystem::path& as, std::string_view state) {
  for (int number = 1;; ++number) {
    const auto name = detail::beside(as, state, number);
    // rename(2) refuses to land on a directory that holds something: that name is taken.
    if (::rename(directory.c_str(), name.c_str()) == 0) {
      sync_directory(name.parent_path());
      return name;
    }
    if (errno != ENOTEMPTY && errno != EEXIST) detail::fail_to_write(directory, errno);
  }
}

/// Takes the name away first, then deletes: a kill in between leaves `<as>.removing-<n>`, never half a
/// directory that looks whole. Throws StorageError.
inline void remove_durably(const std::filesystem::path& directory, const std::filesystem::path& as) {
  detail::remove_tree(rename_aside(directory, as, "removing"));
}

/// A directory that is filled aside and takes its final name when it is complete.
class DirectoryInProgress {
 public:
  /// Creates `<destination>.writing-<n>`, and the parents that are missing. Throws StorageError.
  explicit DirectoryInProgress(std::filesystem::path destination) : destination_(std::move(destination)) {
    detail::create_durably(destination_.parent_path());
    for (int number = 1;; ++number) {
      path_ = detail::beside(destination_, "writing", number);
      if (::mkdir(path_.c_str(), 0777) == 0) return;
      if (errno != EEXIST) detail::fail_to_write(path_, errno);
    }
  }
  DirectoryInProgress(const DirectoryInProgress&) = delete;
  DirectoryInProgress& operator=(const DirectoryInProgress&) = delete;

  /// Removes what was not published.
  ~DirectoryInProgress() {
    std::error_code ignored;
    if (!published_) std::filesystem::remove_all(path_, ignored);
  }

  /// Where the files go. Close each of them durably (OutputFile::close) before publish().
  const std::filesystem::path& path() const noexcept { return path_; }
  const std::filesystem::path& destination() const noexcept { return destination_; }

  /// Gives the directory its final name, durably. A directory that has the name already steps aside first, as
  /// `.<state_of_previous>-<n>`, and stays there: it is the only good one until this call returns. Returns
  /// its new name, empty when there was none. Throws StorageError.
  std::filesystem::path publish(std::string_view state_of_previous = "replaced") {
    sync_directory(path_);
    std::error_code ignored;
    std::filesystem::path previous;
    if (std::filesystem::exists(std::filesystem::symlink_status(destination_, ignored)))
      previous = rename_aside(destination_, destination_, state_of_previous);
    rename_durably(path_, destination_);
    published_ = true;
    return previous;
  }

 private:
  std::filesystem::path destination_;
  std::filesystem::path path_;
  bool published_ = false;
};

}  // namespace parscale::io
