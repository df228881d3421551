/// Tiles for attention in bfloat16 on the tensor cores as every GPU since sm_80 has them: the same face as
/// FmaTiles. A warp owns 16 rows, or 32 of them where registers allow, and then reads the other operand half
/// as often: shared memory is what limits these kernels.
#pragma once

#include "mma.cuh"

namespace parscale::cuda {

/// Tiles of up to D features; smaller heads are filled up with zeros. Rows in shared memory are D features
/// long, their 16-byte pieces permuted by the row's number modulo 8. A tile begins at a multiple of 256
/// bytes.
template <int D_, int sixteens, int warps_ = 4, int width_ = 64>
struct MmaTiles {
  static constexpr int D = D_, warps = warps_, threads = warps * warp_size;
  static constexpr int warp_rows = 16 * sixteens, height = warps * warp_rows, width = width_;
  static constexpr int row_lanes = 4;
  static constexpr int rows = 2 * sixteens, columns = width / 4, features = D / 4;
  static constexpr int stages = 2;
  static constexpr int work_elements = 0;
  static constexpr int tall = height * D, wide = width * D;  ///< elements of a tile
  using Element = BFloat16;

  using Scores = float[rows][columns];
  using Sums = float[rows][features];
  __device__ static int row(int i) { return warp() * warp_rows + i / 2 * 16 + lane() / 4 + i % 2 * 8; }
  __device__ static int column(int j) { return j / 2 * 8 + lane() % 4 * 2 + j % 2; }
  __device__ static int feature(int c) { return column(c); }

  /// Begins to copy; there when a `wait` says so.
  template <int tile_rows, class Source>
  __device__ static void load_tile(Element* tile, int dim, Source source) {
    constexpr int pieces = D / 8;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x) / pieces; i < tile_rows; i += threads / pieces) {
      const int piece = static_cast<int>(threadIdx.x) % pieces;
      const Element* from = source(i);
      if (from != nullptr && piece * 8 < dim)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address(tile + element(i, piece))),
                     "l"(from + piece * 8)
                     : "memory");
      else
        *reinterpret_cast<uint4*>(tile + element(i, piece)) = {};
    }
  }
  __device__ static void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  /// Until no more than the `pending` latest groups of copies are under way.
  template <int pending>
  __device__ static void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
  }

  /// scores = a b^T
  __device__ static void products(Scores& scores, const Element* a, const Element* b, int) {
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < columns; ++j) scores[i][j] = 0;
    const unsigned a_lane = lane_place(a, warp() * warp_rows + lane() % 16, lane() / 16);
    const unsigned b_lane = lane_place(b, lane() % 8 + lane() / 16 * 8, lane() / 8 % 2);
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      unsigned x[sixteens][4];
#pragma unroll
      for (int m = 0; m < sixteens; ++m) load_matrices(x[m], place(a_lane, m, d));
#pragma unroll
      for (int j = 0; j < width / 16; ++j) {
        unsigned y[4];
        load_matrices(y, place(b_lane, j, d));
#pragma unroll
        for (int m = 0; m < sixteens; ++m) {
          float *s = scores[2 * m] + 4 * j, *t = scores[2 * m + 1] + 4 * j;
          multiply(s[0], s[1], t[0], t[1], x[m], y[0], y[1]);
          multiply(s[2], s[3], t[2], t[3], x[m], y[2], y[3]);
        }
      }
    }
  }

  /// sums += weights b. A thread's results are what it holds of an operand: no way through memory.
  __device__ static void add_products(Sums& sums, const Scores& weights, const Element* b, Element*) {
    const unsigned b_lane = lane_place(b, lane() % 16, lane() / 16);
#pragma unroll
    for (int k = 0; k < width / 16; ++k) {
      unsigned x[sixteens][4];
#pragma unroll
      for (int m = 0; m < sixteens; ++m) {
        const float *s = weights[2 * m] + 4 * k, *t = weights[2 * m + 1] + 4 * k;
        x[m][0] = pair_of(s[0], s[1]);
        x[m][1] = pair_of(t[0], t[1]);
        x[m][2] = pair_of(s[2], s[3]);
        x[m][3] = pair_of(t[2], t[3]);
      }
#pragma unroll
      for (int c = 0; c < D / 16; ++c) {
        unsigned y[4];
        load_turned_matrices(y, place(b_lane, k, c));
#pragma unroll
        for (int m = 0; m < sixteens; ++m) {
          float *s = sums[2 * m] + 4 * c, *t = sums[2 * m + 1] + 4 * c;
          multiply(s[0], s[1], t[0], t[1], x[m], y[0], y[1]);
          multiply(s[2], s[3], t[2], t[3], x[m], y[2], y[3]);
        }
      }
    }
  }

 private:
  __device__ static int warp() { return static_cast<int>(threadIdx.x) / warp_size; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % warp_size; }
  /// Where a row's 16-byte piece lies.
  __device__ static int element(int row, int piece) { return row * D + (piece ^ (row % 8)) * 8; }
  __device__ static unsigned address(const Element* element) {
    return static_cast<unsigned>(__cvta_generic_to_shared(element));
  }
  /// A lane's place in the first 16 rows and 16 features of a tile; it is found anew in every product, for
  /// all places that can be derived from it fill more registers than there are.
  __device__ static unsigned lane_place(const Element* tile, int row, int piece) {
    unsigned at = address(tile + element(row, piece));
    asm volatile("" : "+r"(at));
    return at;
  }
  /// The same place in the rows from 16 i and the features from 16 j.
  __device__ static unsigned place(unsigned lane_place, int i, int j) {
    return (lane_place ^ static_cast<unsigned>(32 * j)) + static_cast<unsigned>(16 * i * D * 2);
  }
};

}  // namespace parscale::cuda
