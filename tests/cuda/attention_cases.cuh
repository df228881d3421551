/// Random attention calls: operands on the device in the kernels' type and in float64, results compared.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include <parscale/backend/cuda/runtime.hpp>

#include "attention_reference.cuh"

namespace parscale::test {

using cuda::Buffer;
using cuda::check;

template <class T>
double wide(T x) {
  return static_cast<double>(x);
}

/// Elements on the device with their float64 copies there.
template <class T>
class Operand {
 public:
  Operand() = default;
  Operand(Index count, std::mt19937& random, float spread) {
    std::normal_distribution<float> normal(0, spread);
    std::vector<T> values(static_cast<std::size_t>(count));
    std::vector<double> wide_values(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = T(normal(random));
      wide_values[i] = wide(values[i]);
    }
    data_ = upload(values);
    wide_ = upload(wide_values);
    count_ = count;
  }
  template <class U>
  static Buffer upload(const std::vector<U>& values) {
    Buffer buffer(values.size() * sizeof(U));
    check(cudaMemcpy(buffer.data(), values.data(), buffer.size(), cudaMemcpyHostToDevice), "upload");
    return buffer;
  }
  const T* data() { return count_ == 0 ? nullptr : reinterpret_cast<const T*>(data_.data()); }
  const double* wide_data() { return count_ == 0 ? nullptr : reinterpret_cast<const double*>(wide_.data()); }

 private:
  Buffer data_, wide_;
  Index count_ = 0;
};

/// A result: poisoned before every run with NaN, or with given contents that are added to.
template <class T>
class Result {
 public:
  explicit Result(Index count, float begin = NAN) : data_(bytes(count, sizeof(T))), wide_(bytes(count, 8)) {
    check(cudaMemset(wide_.data(), 0, wide_.size()), "memset");
    begin_.assign(static_cast<std::size_t>(count), T(begin));
  }
  T* poison() {
    check(cudaMemcpy(data_.data(), begin_.data(), data_.size(), cudaMemcpyHostToDevice), "poison");
    return data();
  }
  T* data() { return reinterpret_cast<T*>(data_.data()); }
  double* wide_data() { return reinterpret_cast<double*>(wide_.data()); }
  std::vector<T> values() {
    std::vector<T> values(begin_.size());
    check(cudaMemcpy(values.data(), data_.data(), data_.size(), cudaMemcpyDeviceToHost), "download");
    return values;
  }
  /// The greatest error over [first, first + count of each row) relative to the greatest value; NaN counts.
  double error() {
    return error([](Index) { return true; });
  }
  template <class Which>
  double error(Which which) {
    const auto got = values();
    std::vector<double> want(got.size());
    check(cudaMemcpy(want.data(), wide_.data(), wide_.size(), cudaMemcpyDeviceToHost), "download");
    double worst = 0, largest = 1e-30;
    const double begin = begin_.empty() || std::isnan(wide(begin_[0])) ? 0 : wide(begin_[0]);
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (!which(static_cast<Index>(i))) continue;
      const double error = std::abs(wide(got[i]) - begin - want[i]);
      worst = std::isnan(error) ? INFINITY : std::max(worst, error);
      largest = std::max(largest, std::abs(want[i]));
    }
    return worst / largest;
  }

 private:
  static std::size_t bytes(Index count, std::size_t each) { return static_cast<std::size_t>(count) * each; }
  Buffer data_, wide_;
  std::vector<T> begin_;
};

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace parscale::test
