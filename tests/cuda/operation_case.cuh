/// One call of an operation on the GPU and in float64: its operands, both results, and what must agree.
#pragma once

#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <parscale/backend/cuda/numbers.cuh>

#include "operation_reference.hpp"

namespace parscale::test {

/// Random numbers of a test program, always the same ones.
inline std::mt19937_64& random_engine() {
  static std::mt19937_64 engine(20250515);
  return engine;
}
inline double random_normal() {
  static std::normal_distribution<double> normal;
  return normal(random_engine());
}
inline Index random_below(Index n) {
  return static_cast<Index>(random_engine()() % static_cast<std::uint64_t>(n));
}

/// What rounding to S may cost a result, relative to the largest.
template <class S>
inline constexpr double rounding = std::is_same_v<S, float> ? 1e-5 : 4.1e-3;

/// A tensor on the device and what the reference sees of it. Results know how near they must come.
struct OperandBase {
  Extent extent;
  std::vector<double> initial, expected, got;
  std::vector<std::byte> bytes;
  const char* name = nullptr;  ///< of results
  double allowed = 0;

  explicit OperandBase(const Extent& e) : extent(e) {}
  virtual ~OperandBase() = default;
  virtual void upload() = 0;
  virtual void download() = 0;
};

template <class T>
class Operand : public OperandBase {
 public:
  /// `skew` elements past an aligned address.
  Operand(const Extent& e, Index skew)
      : OperandBase(e),
        buffer_(static_cast<std::size_t>(e.count() + skew + 8) * sizeof(T)),
        data_(reinterpret_cast<T*>(buffer_.data()) + skew) {}

  /// Everything around the tensor is poison, and the tensor too where it is a result.
  void upload() override {
    host_.clear();
    for (const double x : initial) host_.push_back(from_double(x));
    cuda::check(cudaMemset(buffer_.data(), 0xff, buffer_.size()), "poison");
    cuda::check(cudaMemcpy(data_, host_.data(), host_.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  }
  void download() override {
    std::vector<T> values(initial.size());
    cuda::check(cudaMemcpy(values.data(), data_, values.size() * sizeof(T), cudaMemcpyDeviceToHost),
                "download");
    const auto* begin = reinterpret_cast<const std::byte*>(values.data());
    bytes.assign(begin, begin + values.size() * sizeof(T));
    got.clear();
    for (const T x : values) got.push_back(static_cast<double>(x));
  }

  T* data() const { return data_; }
  In<T> in() const { return {data_, extent}; }
  Out<T> out() const { return {data_, extent}; }
  In<T> in_if(bool present) const { return present ? in() : In<T>{}; }
  Out<T> out_if(bool present) const { return present ? out() : Out<T>{}; }
  operator In<T>() const { return in(); }
  operator Out<T>() const { return out(); }

  /// The same for the reference.
  Out<double> wide() { return {expected.data(), extent}; }
  Out<double> wide_if(bool present) { return present ? wide() : Out<double>{}; }
  /// Integers on the host.
  In<T> host() const { return {host_.data(), extent}; }

  static T from_double(double x) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(x);
    else
      return T(static_cast<float>(x));
  }

 private:
  cuda::Buffer buffer_;
  T* data_;
  std::vector<T> host_;
};

/// The operands of a call. Runs it twice on the device, each time over poison: the bytes must be the same.
class Case {
 public:
  Case(const cuda::Launch& on, Index skew) : on_(on), skew_(skew) {}

  template <class T>
  Operand<T>& input(const Extent& extent, double spread = 1, double middle = 0) {
    Operand<T>& operand = add<T>(extent, skew_);
    for (double& x : operand.initial)
      x = static_cast<double>(Operand<T>::from_double(middle + spread * random_normal()));
    return operand;
  }
  template <class T, class F>
  Operand<T>& integers(const Extent& extent, F f) {
    Operand<T>& operand = add<T>(extent, 0);
    for (Index i = 0; i < extent.count(); ++i)
      operand.initial[static_cast<std::size_t>(i)] = static_cast<double>(f(i));
    return operand;
  }
  /// A result that overwrites what was there.
  template <class T>
  Operand<T>& result(const char* name, const Extent& extent, double allowed = rounding<T>) {
    Operand<T>& operand = add<T>(extent, skew_);
    operand.initial.assign(operand.initial.size(), std::nan(""));
    return expect(operand, name, allowed);
  }
  /// A result that is added to, or replaces an operand.
  template <class T>
  Operand<T>& updated(const char* name, const Extent& extent, double allowed = rounding<T>,
                      double spread = 1) {
    return expect(input<T>(extent, spread), name, allowed);
  }

  template <class Device, class Reference>
  void run(const std::string& what, Device device, Reference reference) {
    if (calls++ % every != 0) return;
    std::vector<std::vector<std::byte>> first;
    for (int round = 0; round < 2; ++round) {
      for (auto& operand : operands_) operand->upload();
      cuda::check(cudaDeviceSynchronize(), "upload");  // the stream does not wait for copies outside of it
      device();
      cuda::check(cudaStreamSynchronize(on_.stream), what.c_str());
      for (auto& operand : operands_) {
        if (operand->name != nullptr) operand->download();
        if (round == 0) first.push_back(operand->bytes);
      }
    }
    for (auto& operand : operands_) operand->expected = operand->initial;
    reference();
    for (std::size_t i = 0; i < operands_.size(); ++i)
      if (operands_[i]->name != nullptr) compare(what, *operands_[i], operands_[i]->bytes == first[i]);
  }

  static inline int checks = 0, failures = 0;
  static inline int every = 1, calls = 0;  ///< of the calls only each so manieth is made, under slow tools

 private:
  template <class T>
  Operand<T>& add(const Extent& extent, Index skew) {
    auto operand = std::make_unique<Operand<T>>(extent, skew);
    Operand<T>& added = *operand;
    added.initial.resize(static_cast<std::size_t>(extent.count()));
    operands_.push_back(std::move(operand));
    return added;
  }
  template <class T>
  static Operand<T>& expect(Operand<T>& operand, const char* name, double allowed) {
    operand.name = name;
    operand.allowed = allowed;
    return operand;
  }
  /// The largest error relative to the largest expected number; NaN when one is missing or undefined.
  static void compare(const std::string& what, const OperandBase& operand, bool same_twice) {
    double largest = 1e-30, error = 0;
    for (std::size_t i = 0; i < operand.expected.size(); ++i) {
      const double e = std::abs(operand.expected[i] - operand.got[i]);
      largest = std::max(largest, std::abs(operand.expected[i]));
      if (!(e <= error)) error = e;
      if (std::isnan(e)) break;
    }
    ++checks;
    if (error / largest <= operand.allowed && same_twice) return;
    if (++failures <= 20)
      std::printf("FAILED %s, %s: error %.3g, allowed %.3g%s\n", what.c_str(), operand.name, error / largest,
                  operand.allowed, same_twice ? "" : ", not the same twice");
  }

  const cuda::Launch& on_;
  Index skew_;
  std::vector<std::unique_ptr<OperandBase>> operands_;
};

/// "rms_norm 4 7 1536", for messages.
template <class... Number>
std::string call(const char* operation, Number... numbers) {
  std::string text = operation;
  ((text += ' ', text += std::to_string(numbers)), ...);
  return text;
}

}  // namespace parscale::test
