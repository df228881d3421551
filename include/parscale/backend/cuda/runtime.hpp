/// The CUDA runtime as the backend sees it: checked calls, owners of device memory, a stream. Host code only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <utility>

#include "../../core/error.hpp"
#include "../../core/tensor.hpp"

namespace parscale::cuda {

/// Throws when a call failed; `doing` says what was attempted.
inline void check(cudaError_t status, const char* doing) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // the next call reports its own errors
  throw ConfigurationError(
      {.what = std::string("CUDA failed: ") + doing,
       .why = std::string(cudaGetErrorName(status)) + ", " + cudaGetErrorString(status)});
}

/// Owns device memory, not filled with anything.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes) : size_(bytes) {
    if (bytes == 0) return;
    void* memory = nullptr;
    if (cudaMalloc(&memory, bytes) != cudaSuccess) {
      cudaGetLastError();
      std::size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      throw ConfigurationError(
          {.what = "Not enough memory on the GPU",
           .why = gib(bytes) + " were asked for at once, " + gib(free) + " of " + gib(total) + " are free",
           .remedy = "a smaller batch, shorter sequences or recomputation need less"});
    }
    bytes_ = static_cast<std::byte*>(memory);
  }
  Buffer(Buffer&& other) noexcept
      : bytes_(std::exchange(other.bytes_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(size_, other.size_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(bytes_); }

  std::byte* data() { return bytes_; }
  const std::byte* data() const { return bytes_; }
  std::size_t size() const { return size_; }

 private:
  static std::string gib(std::size_t bytes) {
    return std::to_string(static_cast<double>(bytes) / (1 << 30)) + " GiB";
  }
  std::byte* bytes_ = nullptr;
  std::size_t size_ = 0;
};

/// Device memory that one operation uses while it runs; it is kept for the next one. Operations of one stream
/// run in order, so that they may share it.
class Scratch {
 public:
  /// `count` elements with arbitrary contents, aligned to 256 bytes; whatever was taken before is lost.
  template <class T>
  T* take(Index count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    if (buffer_.size() < bytes) {
      buffer_ = Buffer();  // cudaFree waits for the kernels that still use it
      buffer_ = Buffer(bytes);
    }
    return reinterpret_cast<T*>(buffer_.data());
  }

 private:
  Buffer buffer_;
};

/// Where a kernel is launched: what every operation's function takes first.
struct Launch {
  cudaStream_t stream;
  Scratch& scratch;
  int multiprocessors;     ///< of the device
  int compute_capability;  ///< 90 for sm_90
};

/// Times work on a stream by the device's own clock.
class Stopwatch {
 public:
  explicit Stopwatch(cudaStream_t stream) : stream_(stream) {
    check(cudaEventCreate(&begin_), "event");
    check(cudaEventCreate(&end_), "event");
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  /// Milliseconds that `work` takes. Waits for it.
  template <class F>
  float time(F work) const {
    check(cudaEventRecord(begin_, stream_), "event");
    work();
    check(cudaEventRecord(end_, stream_), "event");
    check(cudaEventSynchronize(end_), "event");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin_, end_), "event");
    return milliseconds;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace parscale::cuda
