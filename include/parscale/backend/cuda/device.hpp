/// Which GPU a backend works on, and its stream. Host code only.
#pragma once

#include <string>

#include "runtime.hpp"

namespace parscale::cuda {

/// GPUs that this process can use; 0 where there is none, or no driver.
inline int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

/// One GPU and what kernels need to know of it. Throws ConfigurationError when there is no such GPU.
class Device {
 public:
  explicit Device(int number) : number_(number) {
    const int count = device_count();
    if (number < 0 || number >= count)
      throw ConfigurationError({.what = "There is no such GPU",
                                .why = "number " + std::to_string(number) + " was asked for, " +
                                       std::to_string(count) +
                                       " can be used (CUDA_VISIBLE_DEVICES chooses them)",
                                .remedy = "use the CPU, or check that nvidia-smi shows the GPU"});
    use();
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, number), "asking for the GPU's properties");
    name_ = properties.name;
    multiprocessors_ = properties.multiProcessorCount;
    compute_capability_ = properties.major * 10 + properties.minor;
    memory_ = properties.totalGlobalMem;
    if (compute_capability_ < 80)
      throw ConfigurationError(
          {.what = "The GPU is too old: parscale needs compute capability 8.0",
           .where = name_,
           .why = "it has " + std::to_string(properties.major) + "." + std::to_string(properties.minor)});
  }

  /// Makes this GPU the calling thread's.
  void use() const { check(cudaSetDevice(number_), "choosing the GPU"); }

  int number() const { return number_; }
  const std::string& name() const { return name_; }
  std::size_t memory() const { return memory_; }
  /// Bytes that this and other programs hold now.
  std::size_t memory_in_use() const {
    use();
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for the GPU's memory");
    return total - free;
  }
  /// Dense bfloat16 (or tf32) operations a second by the vendor's data sheet; 0 where not known.
  double peak_flops(bool tf32) const {
    const double bfloat16 = compute_capability_ == 90 ? 989.4e12 : compute_capability_ == 80 ? 312e12 : 0;
    return tf32 ? bfloat16 / 2 : bfloat16;
  }
  int multiprocessors() const { return multiprocessors_; }
  int compute_capability() const { return compute_capability_; }  ///< 90 for 9.0

  Launch launch(cudaStream_t stream, Scratch& scratch) const {
    return {stream, scratch, multiprocessors_, compute_capability_};
  }

 private:
  int number_;
  std::string name_;
  std::size_t memory_ = 0;
  int multiprocessors_ = 0, compute_capability_ = 0;
};

/// Owns a stream of the calling thread's GPU.
class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream"); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace parscale::cuda
