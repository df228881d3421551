/// The bytes of a text file as a stream, unpacked on the way (gzip, zstd): no more than a buffer of it is in
/// memory at a time.
#pragma once

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../core/error.hpp"
#include "file.hpp"
#include "text_files.hpp"

namespace parscale::io {

/// A source of bytes. Every failure is an InputError that names the file and the position in it.
class TextStream {
 public:
  TextStream() = default;
  TextStream(const TextStream&) = delete;
  TextStream& operator=(const TextStream&) = delete;
  virtual ~TextStream() = default;

  /// Fills the start of `out` (not empty) and returns how many bytes came; 0 at the end.
  virtual std::size_t read(std::span<char> out) = 0;

  /// Leaves out bytes of the text; stops at its end.
  virtual void skip(std::uint64_t bytes) {
    std::vector<char> unwanted(1 << 16);
    while (bytes > 0) {
      const std::size_t count =
          read(std::span(unwanted).first(std::min<std::uint64_t>(bytes, unwanted.size())));
      if (count == 0) return;
      bytes -= count;
    }
  }
};

namespace detail {

/// A file as it lies on the disk.
class PlainStream final : public TextStream {
 public:
  explicit PlainStream(const std::filesystem::path& path) : path_(path), file_(open_to_read(path, status_)) {}

  std::size_t read(std::span<char> out) override {
    for (;;) {
      const ssize_t count = ::read(file_.get(), out.data(), out.size());
      if (count >= 0) return static_cast<std::size_t>(count);
      if (errno != EINTR) fail_to_read(path_, errno);
    }
  }
  void skip(std::uint64_t bytes) override {
    if (::lseek(file_.get(), static_cast<off_t>(bytes), SEEK_CUR) < 0) TextStream::skip(bytes);
  }

 private:
  std::filesystem::path path_;
  struct stat status_ {};
  FileDescriptor file_;
};

/// What both kinds of packed files share: a buffer of packed bytes and the words for what is wrong with them.
class PackedStream : public TextStream {
 protected:
  PackedStream(const std::filesystem::path& path, std::string format)
      : path_(path), format_(std::move(format)), file_(path) {}

  /// Gets more packed bytes once the last were used. False at the end of the file.
  bool refill() {
    if (used_ < filled_) return true;
    taken_ += filled_;
    used_ = 0;
    filled_ = file_.read(std::span(buffer_));
    return filled_ > 0;
  }
  std::span<const char> packed() const { return std::span(buffer_).subspan(used_, filled_ - used_); }
  void use(std::size_t bytes) { used_ += bytes; }

  [[noreturn]] void fail_as_truncated() const {
    fail("The file ends in the middle of its " + format_ + " data",
         "it was cut short when it was written or copied");
  }
  [[noreturn]] void fail_as_damaged(const char* reason) const {
    fail("The file holds damaged " + format_ + " data", reason);
  }

 private:
  [[noreturn]] void fail(std::string what, std::string why) const {
    throw InputError({.what = std::move(what),
                      .where = path_.string() + ", packed byte " + std::to_string(taken_ + used_),
                      .why = std::move(why),
                      .remedy = "fetch the file again"});
  }

  std::filesystem::path path_;
  std::string format_;
  PlainStream file_;
  std::vector<char> buffer_ = std::vector<char>(1 << 16);
  std::size_t used_ = 0, filled_ = 0;
  std::uint64_t taken_ = 0;  // packed bytes that have left the buffer
};

/// gzip, of one member or of several one after the other.
class GzipStream final : public PackedStream {
 public:
  explicit GzipStream(const std::filesystem::path& path) : PackedStream(path, "gzip") {
    constexpr int largest_window_and_gzip_header = 15 + 16;
    if (::inflateInit2(&state_, largest_window_and_gzip_header) != Z_OK) throw std::bad_alloc();
  }
  ~GzipStream() override { ::inflateEnd(&state_); }

  std::size_t read(std::span<char> out) override {
    while (refill()) {
      const std::size_t count = inflate_into(out);
      if (count > 0) return count;
    }
    if (inside_member_) fail_as_truncated();
    return 0;
  }

 private:
  std::size_t inflate_into(std::span<char> out) {
    const std::size_t offered = std::min(out.size(), std::size_t{1} << 30);
    state_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed().data()));
    state_.avail_in = static_cast<uInt>(packed().size());
    state_.next_out = reinterpret_cast<Bytef*>(out.data());
    state_.avail_out = static_cast<uInt>(offered);
    const int result = ::inflate(&state_, Z_NO_FLUSH);
    use(packed().size() - state_.avail_in);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
      fail_as_damaged(state_.msg != nullptr ? state_.msg : ::zError(result));
    inside_member_ = result != Z_STREAM_END;
    if (!inside_member_) ::inflateReset(&state_);
    return offered - state_.avail_out;
  }

  z_stream state_{};
  bool inside_member_ = false;
};

/// zstd, of one frame or of several one after the other, checksums included.
class ZstdStream final : public PackedStream {
 public:
  explicit ZstdStream(const std::filesystem::path& path)
      : PackedStream(path, "zstd"), state_(::ZSTD_createDStream()) {
    if (state_ == nullptr) throw std::bad_alloc();
    constexpr int as_zstd_long_31 = 31;
    ::ZSTD_DCtx_setParameter(state_.get(), ZSTD_d_windowLogMax, as_zstd_long_31);
  }

  std::size_t read(std::span<char> out) override {
    for (;;) {
      // A full output may have left bytes inside the decoder, so it is asked before the file is.
      const bool more = refill();
      if (!more && !inside_frame_) return 0;
      const std::size_t count = decode_into(out);
      if (count > 0) return count;
      if (!more) fail_as_truncated();
    }
  }

 private:
  struct Free {
    void operator()(::ZSTD_DStream* state) const { ::ZSTD_freeDStream(state); }
  };

  std::size_t decode_into(std::span<char> out) {
    ZSTD_inBuffer in{packed().data(), packed().size(), 0};
    ZSTD_outBuffer decoded{out.data(), out.size(), 0};
    const std::size_t result = ::ZSTD_decompressStream(state_.get(), &decoded, &in);
    if (::ZSTD_isError(result) != 0) fail_as_damaged(::ZSTD_getErrorName(result));
    use(in.pos);
    inside_frame_ = result != 0;
    return decoded.pos;
  }

  std::unique_ptr<::ZSTD_DStream, Free> state_;
  bool inside_frame_ = false;
};

}  // namespace detail

/// Opens a text file at its first byte. Throws InputError when it is missing or unreadable.
inline std::unique_ptr<TextStream> open_text(const TextFile& file) {
  switch (file.compression) {
    case Compression::gzip:
      return std::make_unique<detail::GzipStream>(file.path);
    case Compression::zstd:
      return std::make_unique<detail::ZstdStream>(file.path);
    case Compression::none:
      break;
  }
  return std::make_unique<detail::PlainStream>(file.path);
}

}  // namespace parscale::io
