/// What a benchmark of one kernel does around it: random operands on the device, the greatest error against
/// float64, median times.
///
///   NAME check     a line a shape; ends with 1 when one is wrong
///   NAME time      a line a shape
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include <parscale/backend/cuda/numbers.cuh>
#include <parscale/backend/cuda/runtime.hpp>

namespace parscale::bench {

template <class T>
class Memory {
 public:
  explicit Memory(Index count) : count_(count), buffer_(static_cast<std::size_t>(count) * sizeof(T)) {}
  T* data() { return reinterpret_cast<T*>(buffer_.data()); }
  Index count() const { return count_; }
  /// NaN in every number.
  void poison() { cuda::check(cudaMemset(buffer_.data(), 0xff, buffer_.size()), "poison"); }
  std::vector<T> host() const {
    std::vector<T> copy(static_cast<std::size_t>(count_));
    cuda::check(cudaMemcpy(copy.data(), buffer_.data(), buffer_.size(), cudaMemcpyDeviceToHost), "copy");
    return copy;
  }
  void from(const std::vector<T>& host) {
    cuda::check(cudaMemcpy(buffer_.data(), host.data(), buffer_.size(), cudaMemcpyHostToDevice), "copy");
  }

 private:
  Index count_;
  cuda::Buffer buffer_;
};

/// Elements after a result, poisoned with it, that must stay as they are.
inline constexpr Index guard = 4096;

template <class T>
bool guard_untouched(const std::vector<T>& host) {
  const auto* end = reinterpret_cast<const unsigned char*>(host.data() + host.size());
  return std::all_of(end - guard * sizeof(T), end, [](unsigned char c) { return c == 0xff; });
}
template <class T>
bool same_bits(const std::vector<T>& x, const std::vector<T>& y) {
  return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0;
}

/// About normal, standard deviation 1.4: a function of (seed, i).
template <class T>
__global__ void random_kernel(T* out, Index count, unsigned seed) {
  const Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  unsigned x = static_cast<unsigned>(i) * 2654435761U ^ seed * 0x9e3779b9U;
  float sum = 0;
  for (int k = 0; k < 4; ++k) {
    x = (x ^ x >> 16U) * 0x7feb352dU;
    x = (x ^ x >> 15U) * 0x846ca68bU;
    sum += static_cast<float>(x >> 8U) / (1 << 24) - 0.5F;
  }
  cuda::store(sum * 2.4F, out + i);
}
template <class T>
void fill_random(Memory<T>& memory, unsigned seed) {
  if (memory.count() > 0)
    random_kernel<<<static_cast<unsigned>((memory.count() + 255) / 256), 256>>>(memory.data(), memory.count(),
                                                                                seed);
}

/// The greatest difference over the greatest value; NaN anywhere is infinite.
struct LargestError {
  double worst = 0, greatest = 1e-30;

  void add(double got, double want) {
    const double difference = std::abs(got - want);
    worst = std::max(worst, std::isnan(difference) ? INFINITY : difference);
    greatest = std::max(greatest, std::abs(want));
  }
  double relative() const { return worst / greatest; }
};

inline cuda::Launch launch() {
  static cuda::Scratch scratch;
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, 0), "properties");
  return {nullptr, scratch, properties.multiProcessorCount, properties.major * 10 + properties.minor};
}

/// Of f(0), f(1), ...: operands may take turns.
template <class F>
double median_ms(int warm, int runs, F f) {
  const cuda::Stopwatch stopwatch(nullptr);
  std::vector<float> times;
  for (int i = 0; i < warm + runs; ++i) {
    const float ms = stopwatch.time([&] { f(i); });
    if (i >= warm) times.push_back(ms);
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<std::size_t>(runs) / 2];
}

/// `check` says whether all shapes are right.
template <class Check, class Time>
int check_and_time(int count, char** arguments, Check check, Time time) {
  const cuda::Launch on = launch();
  const auto only = [&](const char* word) { return count > 1 && std::strcmp(arguments[1], word) == 0; };
  const bool good = only("time") || check(on);
  if (!only("check")) time(on);
  return good ? 0 : 1;
}

}  // namespace parscale::bench
