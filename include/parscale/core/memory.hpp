/// Memory by plan: an arena hands out pieces of one allocation in order. Without memory it only counts, so
/// the code that uses an arena is also the code that plans it.
#pragma once

#include <cstddef>
#include <string>

#include "tensor.hpp"

namespace parscale {

class Arena {
 public:
  static constexpr std::size_t alignment = 256;  ///< rows of matrices do not straddle a GPU's cache lines

  /// Counts only: every view it hands out is absent.
  Arena() = default;
  Arena(std::byte* base, std::size_t size) : base_(base), size_(size) {}

  /// The next `extent` elements, uninitialised.
  template <class T>
  View<T> take(const Extent& extent) {
    return {reinterpret_cast<T*>(next(static_cast<std::size_t>(extent.count()) * sizeof(T))), extent};
  }

  std::size_t peak() const { return peak_; }

  /// Everything taken while a Frame lives is given back when it dies.
  class Frame {
   public:
    explicit Frame(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    ~Frame() { arena_.used_ = mark_; }

   private:
    Arena& arena_;
    std::size_t mark_;
  };

 private:
  /// The same for every type, and a call in all the code that takes memory.
  [[gnu::noinline]] std::byte* next(std::size_t bytes) {
    const std::size_t begin = used_;
    used_ += (bytes + alignment - 1) / alignment * alignment;
    peak_ = used_ > peak_ ? used_ : peak_;
    if (base_ == nullptr) return nullptr;
    if (used_ > size_)
      throw ConfigurationError({.what = "The memory plan is smaller than its use",
                                .why = concat({used_, " bytes used, ", size_, " planned"})});
    return base_ + begin;
  }

  std::byte* base_ = nullptr;
  std::size_t size_ = 0, used_ = 0, peak_ = 0;
};

}  // namespace parscale
