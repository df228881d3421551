/// One register full of numbers, as the compilers' own vector type: the same source for every processor.
#pragma once

#include <cstring>
#include <utility>

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
  using Vector [[gnu::vector_size(simd_bytes)]] = T;
  static constexpr int width = simd_bytes / static_cast<int>(sizeof(T)), registers = simd_registers;

  // One vector at a time: larger copies would keep arrays of vectors in memory.
  static Vector load(const T* from) {
    Vector v;
    std::memcpy(&v, from, sizeof(v));
    return v;
  }
  static void store(const Vector& v, T* to) { std::memcpy(to, &v, sizeof(v)); }

  /// Vector whose number i is the sum of the numbers of v[i]: halves are added to halves, of two vectors at
  /// a time.
  static Vector sums(Vector (&v)[width]) { return fold<width>(v); }

 private:
  /// n vectors whose blocks of n numbers are to be added up.
  template <int n>
  static Vector fold(Vector (&v)[width]) {
    if constexpr (n == 1) {
      return v[0];
    } else {
      for (int i = 0; i < n / 2; ++i)
        v[i] = half_blocks<n, 0>(v[2 * i], v[2 * i + 1], std::make_integer_sequence<int, width>{}) +
               half_blocks<n, n / 2>(v[2 * i], v[2 * i + 1], std::make_integer_sequence<int, width>{});
      return fold<n / 2>(v);
    }
  }
  /// The halves that begin at `from` of all blocks of n numbers, of a and then of b.
  template <int n, int from, int... i>
  static Vector half_blocks(const Vector& a, const Vector& b, std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, (i / (n / 2) * n + i % (n / 2) + from)...);
  }
};

}  // namespace parscale::cpu
