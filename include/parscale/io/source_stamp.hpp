/// A cheap witness of a file's content: when it differs, the file has changed.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "file.hpp"
#include "hash.hpp"

namespace parscale::io {

struct SourceStamp {
  std::uint64_t bytes = 0;
  std::int64_t modified = 0;       ///< nanoseconds since 1970
  std::uint64_t content_hash = 0;  ///< of the first and the last 64 KiB
  bool operator==(const SourceStamp&) const = default;
};

namespace detail {

inline std::string read_at(const FileDescriptor& file, const std::filesystem::path& path,
                           std::uint64_t offset, std::size_t bytes) {
  std::string content(bytes, '\0');
  std::size_t have = 0;
  while (have < bytes) {
    const ssize_t count =
        ::pread(file.get(), content.data() + have, bytes - have, static_cast<off_t>(offset + have));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_to_read(path, errno);
    if (count == 0) break;  // someone has just cut the file: the stamp will differ the next time
    have += static_cast<std::size_t>(count);
  }
  content.resize(have);
  return content;
}

}  // namespace detail

/// The stamp of a file as it is now. Throws InputError when it cannot be read.
inline SourceStamp stamp_of(const std::filesystem::path& path) {
  struct stat status {};
  const detail::FileDescriptor file = detail::open_to_read(path, status);
  const auto size = static_cast<std::uint64_t>(status.st_size);
  const std::uint64_t piece = std::min<std::uint64_t>(size, 1 << 16);
  Hash hash;
  hash.add(detail::read_at(file, path, 0, piece)).add(detail::read_at(file, path, size - piece, piece));
  return {.bytes = size,
          .modified = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec,
          .content_hash = hash.value()};
}

}  // namespace parscale::io
