/// Memory of the CPU backend: aligned owners of bytes, and scratch that grows to what operations need.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include "../../config.hpp"
#include "../../core/error.hpp"

namespace parscale::cpu {

/// Owns bytes aligned to 64, not filled with anything.
class Buffer {
 public:
  static constexpr std::size_t alignment = 64;

  Buffer() = default;
  explicit Buffer(std::size_t bytes) : size_(bytes) {
    if (bytes == 0) return;
    const std::size_t whole = (bytes + alignment - 1) / alignment * alignment;
    if (whole >= bytes) bytes_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, whole)));
    if (!bytes_)
      throw ConfigurationError(
          {.what = "Not enough memory",
           .why = std::to_string(static_cast<double>(bytes) / (1 << 30)) + " GiB were asked for at once",
           .remedy = "a smaller batch, shorter sequences or recomputation need less"});
  }

  std::byte* data() { return bytes_.get(); }
  const std::byte* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<std::byte, Free> bytes_;
  std::size_t size_ = 0;
};

/// Memory that one operation uses while it runs; it is kept for the next one.
class Scratch {
 public:
  /// `count` elements with arbitrary contents; whatever was taken before is lost.
  template <class T>
  T* take(Index count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    if (buffer_.size() < bytes) {
      buffer_ = Buffer();
      buffer_ = Buffer(bytes);
    }
    return reinterpret_cast<T*>(buffer_.data());
  }

 private:
  Buffer buffer_;
};

}  // namespace parscale::cpu
