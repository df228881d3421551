/// Checksums that tell whether bytes are still those that were written: CRC-32 as in zlib, gzip and PNG.
/// It finds every single flipped bit and every burst up to 32 bits; it is no defence against intent.
#pragma once

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "file.hpp"

namespace parscale::io {

/// Continues `so_far` over more bytes; start with 0. Feeding pieces gives the checksum of the whole.
inline std::uint32_t crc32_of(std::span<const std::byte> bytes, std::uint32_t so_far = 0) {
  const auto* data = reinterpret_cast<const Bytef*>(bytes.data());
  if (bytes.empty()) return so_far;  // zlib takes a null pointer as a request for the start value
  return static_cast<std::uint32_t>(::crc32_z(so_far, data, bytes.size()));
}
inline std::uint32_t crc32_of(std::string_view text) {
  return crc32_of(std::as_bytes(std::span(text.data(), text.size())));
}

/// Length and checksum of a file's content.
struct ContentSummary {
  std::uint64_t bytes = 0;
  std::uint32_t crc32 = 0;
  bool operator==(const ContentSummary&) const = default;
};

/// Reads a file to its end. Uses read(2): a failing disk is an InputError with the system's words here, where
/// a memory map would be killed by SIGBUS. Throws InputError also for a missing file or a directory.
inline ContentSummary summarize_file(const std::filesystem::path& path) {
  struct stat status {};
  const detail::FileDescriptor file = detail::open_to_read(path, status);
  ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  for (ContentSummary summary;;) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count == 0) return summary;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) detail::fail_to_read(path, errno);
    const auto piece = std::span(buffer).first(static_cast<std::size_t>(count));
    summary.bytes += piece.size();
    summary.crc32 = crc32_of(piece, summary.crc32);
  }
}

/// Eight lower-case hexadecimal digits.
inline std::string hex(std::uint32_t value) {
  std::string text(8, '0');
  for (std::size_t i = 0; i < 8; ++i) text[7 - i] = "0123456789abcdef"[value >> (4 * i) & 15];
  return text;
}

}  // namespace parscale::io
