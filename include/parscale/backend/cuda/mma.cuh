/// The tensor cores as every GPU since sm_80 has them: bfloat16 products of a warp, summed in float32, and
/// what brings matrices into the shape that they take. In comments g = lane / 4 and t = lane % 4.
#pragma once

#include <cstdint>

#include "numbers.cuh"

namespace parscale::cuda {

/// Two neighbours as they lie in memory, the first in the lower half.
__device__ inline float low_half(unsigned pair) { return __uint_as_float(pair << 16U); }
__device__ inline float high_half(unsigned pair) { return __uint_as_float(pair & 0xffff0000U); }
__device__ inline unsigned pair_of(float low, float high) {
  unsigned pair = 0;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

/// c [16,8] += a [16,16] b [16,8]. Pairs: a0 (g; 2t), a1 (g+8; 2t), a2 (g; 2t+8), a3 (g+8; 2t+8), b0 (2t; g),
/// b1 (2t+8; g); c0, c1 (g; 2t), c2, c3 (g+8; 2t).
__device__ inline void multiply(float& c0, float& c1, float& c2, float& c3, const unsigned (&a)[4],
                                unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  multiply(c[0], c[1], c[2], c[3], a, b0, b1);
}
/// c [16,8] += a [16,8] b [8,8]: the first halves of the above.
__device__ inline void multiply(float (&c)[4], const unsigned (&a)[2], unsigned b0) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b0));
}

/// An 8 x 8 matrix, of which each lane holds the pair (g; 2t), the other way round.
__device__ inline unsigned transposed(unsigned pair) {
  unsigned turned = 0;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(pair));
  return turned;
}

/// Four 8 x 8 matrices from shared memory; lane 8i + j says where row j of matrix i lies (16 bytes). Each
/// lane gets the pairs (g; 2t), or of the matrices the other way round.
__device__ inline void load_matrices(unsigned (&m)[4], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}
__device__ inline void load_turned_matrices(unsigned (&m)[4], unsigned row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}

/// The other way: four 8 x 8 matrices into shared memory.
__device__ inline void store_matrices(unsigned row, unsigned m0, unsigned m1, unsigned m2, unsigned m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(row), "r"(m0), "r"(m1),
               "r"(m2), "r"(m3)
               : "memory");
}

}  // namespace parscale::cuda
