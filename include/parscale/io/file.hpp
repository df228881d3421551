/// Files at the level of the operating system: a read-only memory map for reading, write(2) for writing, and
/// the calls that make what was written durable. Reading fails with InputError, writing with StorageError.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "../core/error.hpp"

namespace parscale::io {

namespace detail {

/// The system's own words for an errno.
inline std::string words_for(int error) { return std::generic_category().message(error); }

[[noreturn]] inline void fail_to_read(const std::filesystem::path& path, int error) {
  const bool missing = error == ENOENT || error == ENOTDIR;
  throw InputError({.what = missing ? "The file does not exist" : "The file cannot be read",
                    .where = path.string(),
                    .why = words_for(error),
                    .remedy = missing ? "check the spelling of the path" : ""});
}

[[noreturn]] inline void fail_to_write(const std::filesystem::path& path, int error) {
  const bool full = error == ENOSPC || error == EDQUOT;
  throw StorageError({.what = full ? "The disk is full" : "Writing failed",
                      .where = path.string(),
                      .why = words_for(error),
                      .remedy = full ? "free some space there or choose another folder"
                                     : "check that the folder exists and may be written to"});
}

/// An open file that closes itself, silently.
class FileDescriptor {
 public:
  explicit FileDescriptor(int number = -1) : number_(number) {}
  FileDescriptor(FileDescriptor&& other) noexcept : number_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~FileDescriptor() {
    if (number_ >= 0) ::close(number_);
  }

  int get() const noexcept { return number_; }
  bool is_open() const noexcept { return number_ >= 0; }
  int release() noexcept { return std::exchange(number_, -1); }

 private:
  int number_;
};

/// Opens for reading; refuses directories, which open(2) would accept.
inline FileDescriptor open_to_read(const std::filesystem::path& path, struct stat& status) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open() || ::fstat(file.get(), &status) != 0) fail_to_read(path, errno);
  if (S_ISDIR(status.st_mode))
    throw InputError({.what = "A file is needed here, this is a directory", .where = path.string()});
  return file;
}

}  // namespace detail

/// A file seen as read-only memory. Pages are read when they are touched, so opening costs nothing, however
/// large the file is. Nobody may truncate the file while it is mapped.
class MappedFile {
 public:
  /// Throws InputError: missing, a directory, unreadable, or not a regular file (a pipe). Empty files are
  /// fine.
  explicit MappedFile(const std::filesystem::path& path) {
    struct stat status {};
    const detail::FileDescriptor file = detail::open_to_read(path, status);
    if (!S_ISREG(status.st_mode))
      throw InputError({.what = "Only a regular file can be mapped into memory", .where = path.string()});
    size_ = static_cast<std::size_t>(status.st_size);
    if (size_ == 0) return;
    void* memory = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (memory == MAP_FAILED) detail::fail_to_read(path, errno);
    memory_ = static_cast<const std::byte*>(memory);
  }
  MappedFile(MappedFile&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~MappedFile() {
    if (memory_ != nullptr) ::munmap(const_cast<std::byte*>(memory_), size_);
  }

  std::span<const std::byte> bytes() const noexcept { return {memory_, size_}; }

 private:
  const std::byte* memory_ = nullptr;
  std::size_t size_ = 0;
};

/// The whole content of a file, which may also be a pipe. Throws InputError as MappedFile does.
inline std::string read_file(const std::filesystem::path& path) {
  struct stat status {};
  const detail::FileDescriptor file = detail::open_to_read(path, status);
  constexpr std::size_t piece = 1 << 16;
  std::string content;
  content.reserve(static_cast<std::size_t>(status.st_size));
  for (;;) {
    const std::size_t have = content.size();
    content.resize(have + piece);
    const ssize_t count = ::read(file.get(), content.data() + have, piece);
    content.resize(have + (count > 0 ? static_cast<std::size_t>(count) : 0));
    if (count == 0) return content;
    if (count < 0 && errno != EINTR) detail::fail_to_read(path, errno);
  }
}

/// A new file, or an old one written from its start, through write(2): a full disk is an error here, where a
/// memory map would be killed by SIGBUS. Every call reaches the system, so collect small pieces beforehand.
class OutputFile {
 public:
  /// Throws StorageError when the file cannot be created.
  explicit OutputFile(const std::filesystem::path& path)
      : path_(path), file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
    if (!file_.is_open()) detail::fail_to_write(path_, errno);
  }

  /// Appends all of `data`. Throws StorageError; a full disk is said as such.
  void write(std::span<const std::byte> data) {
    while (!data.empty()) {
      const ssize_t count = ::write(file_.get(), data.data(), data.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) detail::fail_to_write(path_, errno);
      data = data.subspan(static_cast<std::size_t>(count));
      size_ += static_cast<std::uint64_t>(count);
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

  /// Makes the content durable and closes the file; a second call does nothing. Throws StorageError. Without
  /// close() the destructor closes the file, but nobody learns whether the content arrived.
  void close() {
    if (!file_.is_open()) return;
    // Pipes and terminals cannot be synced and say EINVAL.
    if (::fsync(file_.get()) != 0 && errno != EINVAL) detail::fail_to_write(path_, errno);
    if (::close(file_.release()) != 0) detail::fail_to_write(path_, errno);
  }

  /// Bytes written so far.
  std::uint64_t size() const noexcept { return size_; }
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
  detail::FileDescriptor file_;
  std::uint64_t size_ = 0;
};

/// Makes the names in a directory durable: call it after a file was created, renamed or removed there.
inline void sync_directory(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory.empty() ? "." : directory;
  detail::FileDescriptor file(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file.is_open() || ::fsync(file.get()) != 0) detail::fail_to_write(path, errno);
}

}  // namespace parscale::io
