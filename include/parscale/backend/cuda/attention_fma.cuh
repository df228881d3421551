/// Tiles for attention in float32 on the ordinary arithmetic units, for any head size: the two products of
/// which attention consists, and where a thread's share of their results lies.
#pragma once

#include "vectors.cuh"

namespace parscale::cuda {

/// Tiles of up to D features; smaller heads are filled up with zeros. 16 x 16 threads share rows and columns;
/// the 16 threads of a row are neighbours in one warp.
template <int D_>
struct FmaTiles {
  static constexpr int D = D_, side = 16, threads = side * side;
  static constexpr int height = D > 128 ? 32 : 64, width = height;  ///< rows and columns of scores
  static constexpr int row_lanes = side;                            ///< neighbours that share a row
  static constexpr int rows = height / side, columns = width / side, features = D / side;  ///< of one thread
  static constexpr int stages = 1;                                   ///< of the tiles that pass by
  static constexpr int pitch = D + 4, weights_pitch = width + 4;     ///< padded: no two lanes on one bank
  static constexpr int work_elements = height * weights_pitch;       ///< of shared memory for the weights
  static constexpr int tall = height * pitch, wide = width * pitch;  ///< elements of a tile
  using Element = float;

  /// A thread's share of height x width products, and of height x D sums.
  using Scores = float[rows][columns];
  using Sums = float[rows][features];
  __device__ static int row(int i) { return static_cast<int>(threadIdx.x) / side + side * i; }
  __device__ static int column(int j) { return static_cast<int>(threadIdx.x) % side + side * j; }
  __device__ static int feature(int c) {
    return c / 4 * 4 * side + 4 * (static_cast<int>(threadIdx.x) % side) + c % 4;
  }

  /// tile[i] = the features at source(i), zeros where it is null. Done when it returns.
  template <int tile_rows, class Source>
  __device__ static void load_tile(Element* tile, int dim, Source source) {
    constexpr int pieces = D / Features::count;
    for (int piece = static_cast<int>(threadIdx.x); piece < tile_rows * pieces; piece += threads) {
      const int i = piece / pieces, d = piece % pieces * Features::count;
      const auto* from = source(i);
      const bool there = from != nullptr && d < dim;
      store_features(there ? load_features(from + d) : Features{}, tile + i * pitch + d);
    }
  }
  __device__ static void commit() {}
  template <int pending>
  __device__ static void wait() {}

  /// scores = a b^T
  __device__ static void products(Scores& scores, const Element* a, const Element* b, int dim) {
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < columns; ++j) scores[i][j] = 0;
#pragma unroll 2
    for (int d = 0; d < dim; d += 4) {
      float4 x[rows], y[columns];
#pragma unroll
      for (int i = 0; i < rows; ++i) x[i] = *reinterpret_cast<const float4*>(a + row(i) * pitch + d);
#pragma unroll
      for (int j = 0; j < columns; ++j) y[j] = *reinterpret_cast<const float4*>(b + column(j) * pitch + d);
#pragma unroll
      for (int i = 0; i < rows; ++i)
#pragma unroll
        for (int j = 0; j < columns; ++j) {
          scores[i][j] = fmaf(x[i].x, y[j].x, scores[i][j]);
          scores[i][j] = fmaf(x[i].y, y[j].y, scores[i][j]);
          scores[i][j] = fmaf(x[i].z, y[j].z, scores[i][j]);
          scores[i][j] = fmaf(x[i].w, y[j].w, scores[i][j]);
        }
    }
  }

  /// sums += weights b. The weights pass through `work`, where only their own warp reads them.
  __device__ static void add_products(Sums& sums, const Scores& weights, const Element* b, Element* work) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < columns; ++j) work[row(i) * weights_pitch + column(j)] = weights[i][j];
    __syncwarp();
#pragma unroll 4
    for (int k = 0; k < width; ++k) {
      float x[rows];
#pragma unroll
      for (int i = 0; i < rows; ++i) x[i] = work[row(i) * weights_pitch + k];
#pragma unroll
      for (int c = 0; c < features; c += 4) {
        const float4 y = *reinterpret_cast<const float4*>(b + k * pitch + feature(c));
#pragma unroll
        for (int i = 0; i < rows; ++i) {
          sums[i][c] = fmaf(x[i], y.x, sums[i][c]);
          sums[i][c + 1] = fmaf(x[i], y.y, sums[i][c + 1]);
          sums[i][c + 2] = fmaf(x[i], y.z, sums[i][c + 2]);
          sums[i][c + 3] = fmaf(x[i], y.w, sums[i][c + 3]);
        }
      }
    }
  }
};

}  // namespace parscale::cuda
