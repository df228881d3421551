/// Sums over whole tensors and over columns, in an order that depends on the sizes and the device alone.
#pragma once

#include <span>
#include <vector>

#include "pieces.cuh"

namespace parscale::cuda {

/// A tensor whose squares are added up.
struct Squared {
  const float* data;
  Index count;
};
inline constexpr int most_squared = 128;
inline constexpr Index squares_piece = 16384;
using SquaredPieces = Pieces<Squared, most_squared>;

/// partial[piece] = the sum of squares of that piece, in float64.
template <int threads>
__global__ void __launch_bounds__(threads)
    squares_kernel(const __grid_constant__ SquaredPieces pieces, double* partial) {
  const int piece = static_cast<int>(blockIdx.x), tensor = pieces.tensor_of(piece);
  const Squared x = pieces.tensors[tensor];
  const Index begin = (piece - pieces.first[tensor]) * squares_piece,
              end = min(x.count, begin + squares_piece);
  double sum = 0;
  const auto add = [&](float value) { sum += static_cast<double>(value) * static_cast<double>(value); };
  if (reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && end - begin == squares_piece) {
    constexpr int rounds = static_cast<int>(squares_piece / (threads * 16));
    for (int round = 0; round < rounds; ++round) {
      Floats<4> values[4];
#pragma unroll
      for (int k = 0; k < 4; ++k)
        values[k] =
            load_floats<4>(x.data + begin + ((round * 4 + k) * threads + static_cast<int>(threadIdx.x)) * 4);
#pragma unroll
      for (int k = 0; k < 16; ++k) add(values[k / 4][k % 4]);
    }
  } else {
    for (Index i = begin + threadIdx.x; i < end; i += threads) add(x.data[i]);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[piece] = sum;
}

/// sums[tensor] = its pieces' sums, added up in their order; a block a tensor.
template <int threads>
__global__ void __launch_bounds__(threads)
    add_pieces_kernel(const __grid_constant__ SquaredPieces pieces, const double* partial, double* sums) {
  double sum = 0;
  const int tensor = static_cast<int>(blockIdx.x);
  for (int p = pieces.first[tensor] + static_cast<int>(threadIdx.x); p < pieces.first[tensor + 1];
       p += threads)
    sum += partial[p];
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[tensor] = sum;
}

/// Each tensor's sum of squares, in float64. Waits for the stream, once.
inline void sums_of_squares(const Launch& on, std::span<const In<float>> tensors, std::span<double> sums) {
  constexpr const char* name = "sums_of_squares";
  if (tensors.empty()) return;
  Index most_pieces = 0;
  const auto count = [](const In<float>& x) { return x.count(); };
  const auto squared = [](const In<float>& x) { return Squared{x.data, x.count()}; };
  for_pieces<Squared, most_squared>(tensors, squares_piece, count, squared,
                                    [&](const SquaredPieces&, unsigned pieces, std::size_t) {
                                      most_pieces = std::max<Index>(most_pieces, pieces);
                                    });
  double* totals = on.scratch.take<double>(static_cast<Index>(tensors.size()) + most_pieces);
  double* partial = totals + tensors.size();
  for_pieces<Squared, most_squared>(tensors, squares_piece, count, squared,
                                    [&](const SquaredPieces& group, unsigned pieces, std::size_t first) {
                                      if (pieces > 0)
                                        squares_kernel<256><<<pieces, 256, 0, on.stream>>>(group, partial);
                                      add_pieces_kernel<256>
                                          <<<static_cast<unsigned>(group.count), 256, 0, on.stream>>>(
                                              group, partial, totals + first);
                                      check(cudaGetLastError(), name);
                                    });
  check(cudaMemcpyAsync(sums.data(), totals, tensors.size() * sizeof(double), cudaMemcpyDeviceToHost,
                        on.stream),
        name);
  check(cudaStreamSynchronize(on.stream), name);
}

inline double sum_of_squares(const Launch& on, In<float> x) {
  double sum = 0;
  sums_of_squares(on, {&x, 1}, {&sum, 1});
  return sum;
}

/// out[c] = the sum over rows of in[row,c], in order, or added to: the end of every sum over rows. A block
/// has 32 columns and `groups` of rows.
template <int groups>
__global__ void __launch_bounds__(32 * groups)
    add_rows_kernel(const float* in, int rows, Index cols, float* out, bool accumulate) {
  __shared__ float sums[groups][32];
  const int lane = static_cast<int>(threadIdx.x) % 32, group = static_cast<int>(threadIdx.x) / 32;
  const Index c = static_cast<Index>(blockIdx.x) * 32 + lane;
  float sum = 0;
  if (c < cols)
#pragma unroll 8
    for (int row = group; row < rows; row += groups) sum += in[row * cols + c];
  sums[group][lane] = sum;
  __syncthreads();
  if (group != 0 || c >= cols) return;
  sum = 0;
  for (const auto& part : sums) sum += part[lane];
  out[c] = accumulate ? out[c] + sum : sum;
}
inline void add_rows(const Launch& on, const char* operation, const float* in, int rows, Index cols,
                     float* out, bool accumulate) {
  if (cols == 0) return;
  add_rows_kernel<32><<<blocks_for(cols, 32), 32 * 32, 0, on.stream>>>(in, rows, cols, out, accumulate);
  check(cudaGetLastError(), operation);
}

/// Warps of a block that adds up columns, each with every eighth row.
inline constexpr int column_warps = 8;

/// partial[piece,c] = the sum over a piece of the rows of in[row,c]; rows lie `stride` apart.
template <int N, class S>
__global__ void __launch_bounds__(column_warps * 32)
    column_sums_kernel(const S* in, Index rows, Index cols, Index stride, Index piece, float* partial) {
  __shared__ float sums[column_warps][32 * N];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Index first_col = static_cast<Index>(blockIdx.x) * 32 * N, c = first_col + lane * N;
  const Index end = min(rows, (blockIdx.y + 1) * piece);
  Floats<N> sum{};
  if (c < cols)
#pragma unroll 4
    for (Index row = blockIdx.y * piece + warp; row < end; row += column_warps) {
      const Floats<N> x = load_floats<N>(in + row * stride + c);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += x[i];
    }
#pragma unroll
  for (int i = 0; i < N; ++i) sums[warp][lane * N + i] = sum[i];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 32 * N; i += column_warps * 32) {
    float total = 0;
    for (const auto& part : sums) total += part[i];
    if (first_col + i < cols) partial[blockIdx.y * cols + first_col + i] = total;
  }
}

/// Pieces that the rows of a column sum are cut into.
inline int column_pieces(Index rows) { return static_cast<int>(std::clamp<Index>(rows / 128, 1, 128)); }
/// Bytes of scratch that add_column_sums takes.
inline std::size_t column_sums_scratch(Index rows, Index cols) {
  return static_cast<std::size_t>(column_pieces(rows) * cols) * sizeof(float);
}

/// out[c] = the sum over the rows of in[row,c], c < cols, or added to; rows lie `stride` apart.
template <class S>
void add_column_sums(const Launch& on, const char* operation, const S* in, Index rows, Index cols,
                     Index stride, float* out, bool accumulate) {
  if (cols == 0) return;
  const int pieces = column_pieces(rows);
  const Index piece = (rows + pieces - 1) / pieces;
  float* partial = on.scratch.take<float>(pieces * cols);
  const auto sum = [&](auto kernel, int width) {
    kernel<<<dim3(blocks_for(cols, 32 * width), static_cast<unsigned>(pieces)), column_warps * 32, 0,
             on.stream>>>(in, rows, cols, stride, piece, partial);
  };
  if (packs<S>(cols, in) && stride % pack_of<S> == 0)
    sum(column_sums_kernel<pack_of<S>, S>, pack_of<S>);
  else
    sum(column_sums_kernel<1, S>, 1);
  check(cudaGetLastError(), operation);
  add_rows(on, operation, partial, pieces, cols, out, accumulate);
}

}  // namespace parscale::cuda
