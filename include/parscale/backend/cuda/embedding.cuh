/// Embedding: rows of a table for each replica, and the sum of their gradients in a fixed order.
///
/// The gradient sorts the ids by token, keeping their order, cuts the sorted list into pieces of equal length
/// and adds up each piece's runs of one token. Runs that cross pieces are put together afterwards, in order.
#pragma once

#include "../backend.hpp"
#include "pointwise.cuh"
#include "reduce.cuh"

namespace parscale::cuda {

/// A thread writes the same features of all the rows that an id has.
template <int N, class S>
void embed_packs(const Launch& on, const op::Embed<S>& a) {
  const Index width = a.table.cols() / N, ids = a.ids.count(), copies = ids > 0 ? a.out.rows() / ids : 0;
  const Index replicas = a.replica_embedding ? a.replica_embedding.rows() : 1, rows = a.out.rows() / replicas;
  const S* replica = a.replica_embedding ? a.replica_embedding.data : nullptr;
  each(on, "embed", ids * width, [=] __device__(Index i) {
    const Index place = quotient(i, width), h = (i - place * width) * N;
    const Floats<N> token = load_floats<N>(a.table.data + a.ids.data[place] * width * N + h);
#pragma unroll 4
    for (Index row = place; row < copies * ids; row += ids) {
      Floats<N> value = token;
      if (replica != nullptr) {
        const Floats<N> own = load_floats<N>(replica + quotient(row, rows) * width * N + h);
#pragma unroll
        for (int k = 0; k < N; ++k) value[k] += own[k];
      }
      store_floats(value, a.out.data + row * width * N + h);
    }
  });
}
template <class S>
void embed(const Launch& on, const op::Embed<S>& a) {
  packs<S>(a.table.cols(), a.table.data, a.replica_embedding.data, a.out.data)
      ? embed_packs<pack_of<S>>(on, a)
      : embed_packs<1>(on, a);
}

template <int N, class S>
void sum_replicas_packs(const Launch& on, const op::SumReplicas<S>& a) {
  const Index count = a.layout.positions() * a.x.cols();
  const int replicas = a.layout.replicas;
  S* const x = a.x.data;
  each(on, "sum_replicas", count / N, [=] __device__(Index i) {
    Floats<N> sum = load_floats<N>(x + i * N);
#pragma unroll 4
    for (int r = 1; r < replicas; ++r) {
      const Floats<N> other = load_floats<N>(x + r * count + i * N);
#pragma unroll
      for (int k = 0; k < N; ++k) sum[k] += other[k];
    }
    store_floats(sum, x + i * N);
  });
}
template <class S>
void sum_replicas(const Launch& on, const op::SumReplicas<S>& a) {
  packs<S>(a.layout.positions() * a.x.cols(), a.x.data) ? sum_replicas_packs<pack_of<S>>(on, a)
                                                        : sum_replicas_packs<1>(on, a);
}

/// An id and where it stands among the ids.
struct alignas(8) TokenPlace {
  Token token;
  std::int32_t place;
};

inline constexpr int sort_bits = 4, sort_digits = 1 << sort_bits, sort_threads = 512;

/// Exclusive sums over the block's counts in the order in which they lie, sort_digits of them a thread.
template <int threads>
__device__ void scan_counts(int* counts) {
  __shared__ int warp_sums[threads / warp_size];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % warp_size, warp = thread / warp_size;
  int* own = counts + thread * sort_digits;
  int total = 0;
  for (int d = 0; d < sort_digits; ++d) total += own[d];
  int before = total;  // becomes the inclusive sum over the warp's threads
  for (int step = 1; step < warp_size; step *= 2) {
    const int other = __shfl_up_sync(0xffffffffU, before, step);
    if (lane >= step) before += other;
  }
  if (lane == warp_size - 1) warp_sums[warp] = before;
  __syncthreads();
  before -= total;
  for (int w = 0; w < warp; ++w) before += warp_sums[w];
  for (int d = 0; d < sort_digits; ++d) {
    const int count = own[d];
    own[d] = before;
    before += count;
  }
  __syncthreads();
}

/// Sorts the ids by token, stably: a radix sort by one block, each thread with a stretch of the list. The
/// result lies in `sorted` after an even number of passes, else in `other`.
template <int threads>
__global__ void __launch_bounds__(threads)
    sort_ids_kernel(const Token* ids, int count, int passes, TokenPlace* sorted, TokenPlace* other) {
  __shared__ int counts[sort_digits * threads];
  const int thread = static_cast<int>(threadIdx.x), stretch = (count + threads - 1) / threads;
  const int begin = min(count, thread * stretch), end = min(count, begin + stretch);
  for (int i = thread; i < count; i += threads) sorted[i] = {ids[i], i};
  __syncthreads();
  for (int pass = 0; pass < passes; ++pass) {
    const auto digit = [&](TokenPlace p) { return (p.token >> (pass * sort_bits)) % sort_digits; };
    for (int d = 0; d < sort_digits; ++d) counts[d * threads + thread] = 0;
#pragma unroll 4
    for (int i = begin; i < end; ++i) ++counts[digit(sorted[i]) * threads + thread];
    __syncthreads();
    scan_counts<threads>(counts);
#pragma unroll 4
    for (int i = begin; i < end; ++i) {
      const TokenPlace p = sorted[i];
      other[counts[digit(p) * threads + thread]++] = p;
    }
    __syncthreads();
    TokenPlace* const swap = sorted;
    sorted = other;
    other = swap;
  }
}

inline constexpr int run_piece = 16, run_threads = 64;

/// The sorted ids, and the sums of their runs that are under way. `partial` [pieces,2,H]: of the run that a
/// piece takes over from the piece before, and of the one that it hands on.
struct Runs {
  const TokenPlace* sorted;
  int count;
  Index hidden;
  float *partial, *d_table;

  __device__ bool same(int i, int j) const { return sorted[i].token == sorted[j].token; }
  /// The run that id i belongs to began before its piece did.
  __device__ bool taken_over(int i) const {
    const int begin = i / run_piece * run_piece;
    return begin > 0 && same(i, begin - 1);
  }
  __device__ float* partial_at(int piece, bool handed_on, int h) const {
    return partial + (2 * piece + (handed_on ? 1 : 0)) * hidden + h;
  }
  template <int N>
  __device__ void add_to_table(int i, int h, const Floats<N>& sum) const {
    float* to = d_table + sorted[i].token * hidden + h;
    Floats<N> total = load_floats<N>(to);
#pragma unroll
    for (int k = 0; k < N; ++k) total[k] += sum[k];
    store_floats(total, to);
  }
};

/// Each piece's runs: whole ones are added to the table, the others wait in `partial`. A place's gradient is
/// the sum over `copies` of the ids.
template <int N, class S>
__global__ void __launch_bounds__(run_threads) run_sums_kernel(const Runs a, const S* d_out, int copies) {
  const int piece = static_cast<int>(blockIdx.x), begin = piece * run_piece,
            end = min(a.count, begin + run_piece);
  const int h = static_cast<int>(blockIdx.y * run_threads + threadIdx.x) * N;
  if (h >= a.hidden) return;
  Floats<N> sum{};
  for (int i = begin; i < end; ++i) {
    const S* from = d_out + a.sorted[i].place * a.hidden + h;
#pragma unroll 4
    for (int c = 0; c < copies; ++c) {
      const Floats<N> x = load_floats<N>(from + c * a.count * a.hidden);
#pragma unroll
      for (int k = 0; k < N; ++k) sum[k] += x[k];
    }
    const bool run_ends = i + 1 == a.count || !a.same(i, i + 1);
    if (!run_ends && i + 1 < end) continue;
    const bool taken_over = a.taken_over(i);
    if (run_ends && !taken_over)
      a.add_to_table(i, h, sum);
    else
      store_floats(sum, a.partial_at(piece, !taken_over, h));
    sum = {};
  }
}

/// A piece that hands a run on adds up all its parts.
template <int N>
__global__ void __launch_bounds__(run_threads) join_runs_kernel(const Runs a) {
  const int piece = static_cast<int>(blockIdx.x), next = (piece + 1) * run_piece;
  const int h = static_cast<int>(blockIdx.y * run_threads + threadIdx.x) * N;
  if (h >= a.hidden || next >= a.count || !a.same(next - 1, next) || a.taken_over(next - 1)) return;
  Floats<N> sum = load_floats<N>(a.partial_at(piece, true, h));
  for (int i = next; i < a.count && a.same(next - 1, i); i += run_piece) {
    const Floats<N> part = load_floats<N>(a.partial_at(i / run_piece, false, h));
#pragma unroll
    for (int k = 0; k < N; ++k) sum[k] += part[k];
  }
  a.add_to_table(next - 1, h, sum);
}

inline int run_pieces(Index ids) { return static_cast<int>((ids + run_piece - 1) / run_piece); }
inline Index run_partial(Index ids, Index hidden) { return Index{2} * run_pieces(ids) * hidden; }
/// Bytes of scratch that embed_backward takes.
inline std::size_t embed_backward_scratch(Index ids, Index rows, Index hidden) {
  const auto runs = static_cast<std::size_t>(run_partial(ids, hidden)) * sizeof(float) +
                    static_cast<std::size_t>(2 * ids) * sizeof(TokenPlace);
  return std::max(runs, column_sums_scratch(rows, hidden));
}

template <class S>
void embed_backward_table(const Launch& on, const op::EmbedBackward<S, float>& a) {
  const Index ids = a.ids.count(), hidden = a.d_out.cols();
  if (!a.accumulate) fill_zero(on, a.d_table);
  if (ids == 0) return;
  const Index partial = run_partial(ids, hidden);  // even: what follows is aligned to 8 bytes
  float* memory = on.scratch.take<float>(partial + 4 * ids);
  TokenPlace* sorted = reinterpret_cast<TokenPlace*>(memory + partial);
  int passes = 1;
  while (a.d_table.rows() > Index{1} << (passes * sort_bits)) ++passes;
  sort_ids_kernel<sort_threads>
      <<<1, sort_threads, 0, on.stream>>>(a.ids.data, static_cast<int>(ids), passes, sorted, sorted + ids);
  const Runs runs{passes % 2 == 0 ? sorted : sorted + ids, static_cast<int>(ids), hidden, memory,
                  a.d_table.data};
  const auto add = [&](auto sums, auto join, int N) {
    const dim3 grid(static_cast<unsigned>(run_pieces(ids)), blocks_for(hidden, run_threads * N));
    sums<<<grid, run_threads, 0, on.stream>>>(runs, a.d_out.data, static_cast<int>(a.d_out.rows() / ids));
    join<<<grid, run_threads, 0, on.stream>>>(runs);
  };
  constexpr int N = pack_of<S>;
  if (packs<S>(hidden, a.d_out.data, a.d_table.data))
    add(run_sums_kernel<N, S>, join_runs_kernel<N>, N);
  else
    add(run_sums_kernel<1, S>, join_runs_kernel<1>, 1);
  check(cudaGetLastError(), "embed_backward");
}

template <class S>
void embed_backward(const Launch& on, const op::EmbedBackward<S, float>& a) {
  if (a.d_table) embed_backward_table(on, a);
  if (!a.d_replica_embedding) return;
  const Index hidden = a.d_out.cols(), rows = a.d_out.rows() / a.d_replica_embedding.rows();
  for (Index r = 0; r < a.d_replica_embedding.rows(); ++r)
    add_column_sums(on, "embed_backward", a.d_out.data + r * rows * hidden, rows, hidden, hidden,
                    a.d_replica_embedding.row(r), a.accumulate);
}

}  // namespace parscale::cuda
