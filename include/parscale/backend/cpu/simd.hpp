/// One register full of numbers, as the compilers' own vector type: the same source for every processor.
#pragma once

#include <cstring>

namespace parscale::cpu {

#if defined(__AVX512F__)
inline constexpr int simd_bytes = 64, simd_registers = 32;
#elif defined(__AVX__)
inline constexpr int simd_bytes = 32, simd_registers = 16;
#elif defined(__aarch64__)
inline constexpr int simd_bytes = 16, simd_registers = 32;
#else
inline constexpr int simd_bytes = 16, simd_registers = 16;
#endif

template <class T>
struct Simd {
  typedef T Vector __attribute__((vector_size(simd_bytes)));
  static constexpr int width = simd_bytes / static_cast<int>(sizeof(T)), registers = simd_registers;

  // One vector at a time: larger copies would keep arrays of vectors in memory.
  static Vector load(const T* from) {
    Vector v;
    std::memcpy(&v, from, sizeof(v));
    return v;
  }
  static void store(const Vector& v, T* to) { std::memcpy(to, &v, sizeof(v)); }
};

}  // namespace parscale::cpu
