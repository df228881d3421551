/// Rotary embedding in place. A thread turns the same few features of every head of its row, so that cosines
/// and sines are read once a row.
#pragma once

#include <cmath>

#include "../backend.hpp"
#include "numbers.cuh"
#include "rotary_tables.hpp"

namespace parscale::cuda {

/// The cosine and sine of position * theta^(-2d/D). Angles in float64: float32 loses them at large positions.
__device__ inline float2 rotary_turn(Index position, int d, int head_dim, double theta) {
  double sine = 0, cosine = 0;
  sincos(static_cast<double>(position) * pow(theta, -2.0 * d / head_dim), &sine, &cosine);
  return {static_cast<float>(cosine), static_cast<float>(sine)};
}

template <int threads>
__global__ void __launch_bounds__(threads)
    rotary_table_kernel(float2* turns, Index count, int head_dim, double theta) {
  const Index i = static_cast<Index>(blockIdx.x) * threads + threadIdx.x;
  const int half = head_dim / 2;
  if (i < count) turns[i] = rotary_turn(i / half, static_cast<int>(i % half), head_dim, theta);
}

/// The table's turns [positions,D/2]. It grows with the positions asked for.
inline const float2* rotary_turns(const Launch& on, RotaryTables::Table& table, Index positions, int head_dim,
                                  double theta) {
  if (positions > table.positions || head_dim != table.head_dim || theta != table.theta) {
    const Index known = std::max(positions, table.positions), count = known * (head_dim / 2);
    table = {};  // cudaFree waits for the kernels that still read it
    table = {Buffer(static_cast<std::size_t>(count) * sizeof(float2)), known, head_dim, theta};
    rotary_table_kernel<256><<<blocks_for(count, 256), 256, 0, on.stream>>>(
        reinterpret_cast<float2*>(table.turns.data()), count, head_dim, theta);
    check(cudaGetLastError(), "rotate");
  }
  return reinterpret_cast<const float2*>(table.turns.data());
}

/// What the kernel needs of an op::Rotate. Positions after those in a cache are known to the device alone, so
/// that there is no table of them.
template <class S>
struct Rotation {
  S* x;
  Index rows, positions, tokens, width;
  int heads, head_dim;
  double theta;
  bool by_replica;
  float direction;
  const Index* past;
  const std::int32_t* starts;
  const float2* turns;

  __device__ Index position(Index row) const {
    if (by_replica) return quotient(row, positions);
    const Index n = row - quotient(row, positions) * positions, b = quotient(n, tokens);
    return (past != nullptr ? past[b] : 0) + n - b * tokens - (starts != nullptr ? starts[n] : 0);
  }
};

/// Heads that a thread turns: enough to use what it read, few enough for blocks of a length that fills the
/// GPU.
inline constexpr int heads_at_once = 4;

template <int N, bool from_table, class S>
__global__ void __launch_bounds__(256) rotate_kernel(const Rotation<S> a) {
  const int half = a.head_dim / 2, packs = half / N;
  const Index i = static_cast<Index>(blockIdx.x) * 256 + threadIdx.x, row = quotient(i, packs);
  if (row >= a.rows) return;
  const int d = static_cast<int>(i - row * packs) * N;
  const Index position = a.position(row);
  float2 turn[N];
#pragma unroll
  for (int k = 0; k < N; ++k) {
    turn[k] =
        from_table ? a.turns[position * half + d + k] : rotary_turn(position, d + k, a.head_dim, a.theta);
    turn[k].y *= a.direction;
  }
  const int first = static_cast<int>(blockIdx.y) * heads_at_once, end = min(a.heads, first + heads_at_once);
  S* at = a.x + row * a.width + first * a.head_dim + d;
#pragma unroll 2
  for (int head = first; head < end; ++head, at += a.head_dim) {
    Floats<N> low = load_floats<N>(at), high = load_floats<N>(at + half);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float u = low[k], v = high[k];
      low[k] = u * turn[k].x - v * turn[k].y;
      high[k] = v * turn[k].x + u * turn[k].y;
    }
    store_floats(low, at);
    store_floats(high, at + half);
  }
}

template <class S>
void rotate(const Launch& on, RotaryTables& tables, int head_dim, const op::Rotate<S>& a) {
  const Layout& layout = a.layout;
  const Index rows = layout.rows();
  if (rows == 0 || a.heads == 0) return;
  const bool from_table = a.by_replica || !layout.past;
  Rotation<S> rotation{.x = a.x.data,
                       .rows = rows,
                       .positions = layout.positions(),
                       .tokens = layout.tokens,
                       .width = a.x.cols(),
                       .heads = static_cast<int>(a.heads),
                       .head_dim = head_dim,
                       .theta = a.theta,
                       .by_replica = a.by_replica,
                       .direction = a.inverse ? -1.0F : 1.0F,
                       .past = layout.past.data,
                       .starts = layout.starts.data,
                       .turns = nullptr};
  if (from_table)
    rotation.turns = rotary_turns(on, tables.of(a.by_replica), a.by_replica ? layout.replicas : layout.tokens,
                                  head_dim, a.theta);
  const auto run = [&](auto kernel, int N) {
    const dim3 grid(blocks_for(rows * (head_dim / 2 / N), 256), blocks_for(a.heads, heads_at_once));
    kernel<<<grid, 256, 0, on.stream>>>(rotation);
  };
  constexpr int N = pack_of<S>;
  if (!packs<S>(head_dim / 2, a.x.data) || a.x.cols() % N != 0)
    from_table ? run(rotate_kernel<1, true, S>, 1) : run(rotate_kernel<1, false, S>, 1);
  else
    from_table ? run(rotate_kernel<N, true, S>, N) : run(rotate_kernel<N, false, S>, N);
  check(cudaGetLastError(), "rotate");
}

}  // namespace parscale::cuda
