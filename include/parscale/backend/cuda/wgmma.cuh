/// Products by a warpgroup on Hopper's tensor cores (wgmma): D [64,N] += A [64,16] B [16,N], bfloat16 in,
/// float accumulators in registers.
///
/// Thread t of the warpgroup holds of D, in d[4j ... 4j+3], the rows r = 16 (t / 32) + t % 32 / 4 and r + 8,
/// columns 8j + 2 (t % 4) and the next: (r, c), (r, c+1), (r+8, c), (r+8, c+1). A fragment of A in registers
/// is the same layout in pairs: two neighbouring 8-column pieces of such a D, converted, are one A of 16
/// columns.
#pragma once

#include "hopper.cuh"

namespace parscale::cuda::hopper {

/// How an operand lies in its swizzled panels: with k along the rows' 64 columns, or with k counting the rows
/// (the operand's transpose: V [keys, D] in P V, where k counts keys).
enum class Major { k, mn };

/// What wgmma is told of an operand in shared memory. `panel_bytes`: from one panel of 64 columns to the
/// next, for Major::mn operands wider than one.
__device__ inline std::uint64_t operand(const void* tile, int panel_bytes = 16) {
  const std::uint64_t address = shared_address(tile), leading = static_cast<std::uint64_t>(panel_bytes),
                      eight_rows = 8 * row_bytes, swizzle_128 = 1;
  return (address & 0x3ffffU) >> 4U | leading >> 4U << 16U | eight_rows >> 4U << 32U | swizzle_128 << 62U;
}
/// The operand `bytes` further on; only its lower word holds the address.
__device__ inline std::uint64_t further(std::uint64_t operand, int bytes) {
  const auto low = static_cast<std::uint32_t>(operand) + (static_cast<std::uint32_t>(bytes) >> 4U);
  return (operand & 0xffffffff00000000U) | low;
}
/// Bytes from one 16-k step to the next inside an operand whose panels have `rows` rows.
template <Major major>
__host__ __device__ constexpr int k_step_bytes(int step, int rows) {
  if (major == Major::mn) return step * 16 * row_bytes;
  return step / 4 * rows * row_bytes + step % 4 * 32;
}

/// Before the first product after registers that products use (accumulators or A) were written.
__device__ inline void fence_registers() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/// Products since the last commit are one group.
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// The compiler takes these registers as changed here: what uses them cannot move to before this line.
template <int Count>
__device__ void pin(float (&registers)[Count]) {
#pragma unroll
  for (int i = 0; i < Count / 2; ++i)
    asm volatile("" : "+f"(registers[2 * i]), "+f"(registers[2 * i + 1])::"memory");
}
/// At most `Left` groups are still running. `results` are those of the others, or what must not be touched
/// before.
template <int Left, int... Counts>
__device__ void wait_products(float (&... results)[Counts]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
  (pin(results), ...);
}

// The instruction lists its accumulators one by one and their number depends on N, so each N is a text of its
// own.
#define PARSCALE_R0 "%0,%1,%2,%3,%4,%5,%6,%7"
#define PARSCALE_R1 PARSCALE_R0 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define PARSCALE_R2 PARSCALE_R1 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define PARSCALE_R3 PARSCALE_R2 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define PARSCALE_R4 PARSCALE_R3 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define PARSCALE_R5 PARSCALE_R4 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define PARSCALE_R6 PARSCALE_R5 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define PARSCALE_R7 PARSCALE_R6 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define PARSCALE_R8 PARSCALE_R7 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define PARSCALE_R9 PARSCALE_R8 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define PARSCALE_R10 PARSCALE_R9 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define PARSCALE_R11 PARSCALE_R10 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define PARSCALE_R12 PARSCALE_R11 ",%96,%97,%98,%99,%100,%101,%102,%103"
#define PARSCALE_R13 PARSCALE_R12 ",%104,%105,%106,%107,%108,%109,%110,%111"
#define PARSCALE_R14 PARSCALE_R13 ",%112,%113,%114,%115,%116,%117,%118,%119"
#define PARSCALE_R15 PARSCALE_R14 ",%120,%121,%122,%123,%124,%125,%126,%127"
#define PARSCALE_D0(i)                                                                        \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define PARSCALE_D1 PARSCALE_D0(0), PARSCALE_D0(8)
#define PARSCALE_D3 PARSCALE_D1, PARSCALE_D0(16), PARSCALE_D0(24)
#define PARSCALE_D5 PARSCALE_D3, PARSCALE_D0(32), PARSCALE_D0(40)
#define PARSCALE_D7 PARSCALE_D5, PARSCALE_D0(48), PARSCALE_D0(56)
#define PARSCALE_D9 PARSCALE_D7, PARSCALE_D0(64), PARSCALE_D0(72)
#define PARSCALE_D11 PARSCALE_D9, PARSCALE_D0(80), PARSCALE_D0(88)
#define PARSCALE_D13 PARSCALE_D11, PARSCALE_D0(96), PARSCALE_D0(104)
#define PARSCALE_D15 PARSCALE_D13, PARSCALE_D0(112), PARSCALE_D0(120)

// d = a b + (accumulate ? d : 0), with a in shared memory or in registers. Numbers: of the operands after d.
#define PARSCALE_WGMMA(N, LAST, O0, O1, O2, O3, O4, O5, O6)                                                  \
  template <Major a_major = Major::k, Major b_major = Major::k>                                              \
  __device__ void multiply(float(&d)[N / 2], std::uint64_t a, std::uint64_t b, bool accumulate) {            \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #O2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N       \
                 "k16.f32.bf16.bf16 {" PARSCALE_R##LAST "}, %" #O0 ", %" #O1 ", p, 1, 1, %" #O3 ", %" #O4    \
                                                        ";\n}"                                               \
                 : PARSCALE_D##LAST                                                                          \
                 : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(a_major)),        \
                   "n"(static_cast<int>(b_major)));                                                          \
  }                                                                                                          \
  template <Major b_major = Major::k>                                                                        \
  __device__ void multiply(float(&d)[N / 2], const std::uint32_t(&a)[4], std::uint64_t b, bool accumulate) { \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #O5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N       \
                 "k16.f32.bf16.bf16 {" PARSCALE_R##LAST "}, {%" #O0 ", %" #O1 ", %" #O2 ", %" #O3 "}, %" #O4 \
                                                        ", p, 1, 1, %" #O6 ";\n}"                            \
                 : PARSCALE_D##LAST                                                                          \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)),    \
                   "n"(static_cast<int>(b_major)));                                                          \
  }
PARSCALE_WGMMA(32, 1, 16, 17, 18, 19, 20, 21, 22)
PARSCALE_WGMMA(64, 3, 32, 33, 34, 35, 36, 37, 38)
PARSCALE_WGMMA(96, 5, 48, 49, 50, 51, 52, 53, 54)
PARSCALE_WGMMA(128, 7, 64, 65, 66, 67, 68, 69, 70)
PARSCALE_WGMMA(160, 9, 80, 81, 82, 83, 84, 85, 86)
PARSCALE_WGMMA(192, 11, 96, 97, 98, 99, 100, 101, 102)
PARSCALE_WGMMA(256, 15, 128, 129, 130, 131, 132, 133, 134)
#undef PARSCALE_WGMMA
#undef PARSCALE_R0
#undef PARSCALE_R1
#undef PARSCALE_R2
#undef PARSCALE_R3
#undef PARSCALE_R4
#undef PARSCALE_R5
#undef PARSCALE_R6
#undef PARSCALE_R7
#undef PARSCALE_R8
#undef PARSCALE_R9
#undef PARSCALE_R10
#undef PARSCALE_R11
#undef PARSCALE_R12
#undef PARSCALE_R13
#undef PARSCALE_R14
#undef PARSCALE_R15
#undef PARSCALE_D0
#undef PARSCALE_D1
#undef PARSCALE_D3
#undef PARSCALE_D5
#undef PARSCALE_D7
#undef PARSCALE_D9
#undef PARSCALE_D11
#undef PARSCALE_D13
#undef PARSCALE_D15

/// Two floats as a pair of bfloat16, rounded to the nearest; the first is the lower half.
__device__ inline std::uint32_t packed(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
/// Columns 16 `step` ... of an accumulator as the A of a product.
template <int Count>
__device__ void as_left_operand(const float (&d)[Count], int step, std::uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = packed(d[8 * step + 2 * i], d[8 * step + 2 * i + 1]);
}

}  // namespace parscale::cuda::hopper
