/// Keeps two programs from writing into one directory: a lock that the system itself releases when its holder
/// ends, however it ends.
#pragma once

#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>
#include <utility>

#include "durable_directory.hpp"

namespace parscale::io {

class DirectoryLock {
 public:
  static constexpr const char* file_name = ".lock";

  /// Takes the lock of `directory`, which is created when it is missing. Throws ConfigurationError naming the
  /// holder when another program has it, StorageError when the directory cannot be written to.
  explicit DirectoryLock(const std::filesystem::path& directory) {
    detail::create_durably(directory);
    const auto path = directory / file_name;
    file_ = detail::FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    if (!file_.is_open()) detail::fail_to_write(path, errno);
    if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
      // Some network file systems know no locks; a run there is not refused for that.
      if (errno != EWOULDBLOCK) return;
      throw ConfigurationError({.what = "Another program is writing into this directory",
                                .where = directory.string(),
                                .why = "it is held by " + read_file(path),
                                .remedy = "wait until it ends, stop it, or choose another directory"});
    }
    write_holder();
  }

 private:
  /// For the message that others get; the lock holds without it.
  void write_holder() const {
    std::array<char, 256> host{};
    if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
    const std::string text = "process " + std::to_string(::getpid()) + " on " + host.data();
    if (::ftruncate(file_.get(), 0) == 0 && ::write(file_.get(), text.data(), text.size()) < 0) return;
  }

  detail::FileDescriptor file_;
};

}  // namespace parscale::io
