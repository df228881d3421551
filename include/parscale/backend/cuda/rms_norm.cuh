/// RMSNorm. A row stays in the registers of a team of one or four warps between its statistics and its
/// result; rows that lie unevenly or are too long take a general path, a block a row.
#pragma once

#include "../backend.hpp"
#include "reduce.cuh"

namespace parscale::cuda {

/// Where element (row, h) of a normalised tensor lies: [M,H], or [N,H,P] with P = interleave.
struct NormPlaces {
  Index rows, hidden, interleave;
  __device__ Index at(Index row, Index h) const {
    if (interleave == 1) return row * hidden + h;
    const Index positions = rows / interleave;
    return (row % positions * hidden + h) * interleave + row / positions;
  }
  /// The i-th row in an order that visits a position's replicas one after the other.
  __device__ Index row(Index i) const {
    return interleave == 1 ? i : i % interleave * (rows / interleave) + i / interleave;
  }
};

/// How rows of `hidden` features are dealt out: `packs` of 16 bytes a lane, `warps` warps a row; none: the
/// general path.
struct NormTeam {
  int packs = 0, warps = 0;

  template <class S, class... T>
  static NormTeam of(Index hidden, const T*... tensors) {
    if (!cuda::packs<S>(hidden, tensors...)) return {};
    const Index lane_packs = (hidden / pack_of<S> + warp_size - 1) / warp_size;
    if (lane_packs <= 2) return {2, 1};
    if (lane_packs <= 32) return {static_cast<int>((lane_packs + 7) / 8 * 2), 4};
    return {};
  }
  /// Calls f(Int<packs>, Int<warps>) of a team that is not the general path.
  template <class F>
  void call(F f) const {
    if (packs == 2) warps == 1 ? f(Int<2>{}, Int<1>{}) : f(Int<2>{}, Int<4>{});
    if (packs == 4) f(Int<4>{}, Int<4>{});
    if (packs == 6) f(Int<6>{}, Int<4>{});
    if (packs == 8) f(Int<8>{}, Int<4>{});
  }
};
inline constexpr int norm_threads = 128;

/// The sum over a team's lanes, in each of them.
template <int warps>
__device__ float team_sum(float value) {
  if constexpr (warps == 1)
    return warp_sum(value);
  else
    return block_sum(value);
}

/// A lane's place in the row that its team has.
template <int N, int warps>
struct NormLane {
  static constexpr int lanes = warps * warp_size, teams = norm_threads / lanes;
  int team = static_cast<int>(threadIdx.x) / lanes, lane = static_cast<int>(threadIdx.x) % lanes;
  __device__ int feature(int pack) const { return (pack * lanes + lane) * N; }
};

template <int lane_packs, int warps, class S>
__global__ void __launch_bounds__(norm_threads)
    rms_norm_kernel(const S* x, const S* gain, int hidden, Index rows, float eps, S* out, float* rstd) {
  constexpr int N = pack_of<S>;
  const NormLane<N, warps> place;
  const Index row = static_cast<Index>(blockIdx.x) * place.teams + place.team;
  if (row >= rows) return;
  Pack<S, N> features[lane_packs];
#pragma unroll
  for (int p = 0; p < lane_packs; ++p)
    if (place.feature(p) < hidden) features[p] = load_pack<N>(x + row * hidden + place.feature(p));
  float squares = 0;
#pragma unroll
  for (int p = 0; p < lane_packs; ++p) {
    if (place.feature(p) >= hidden) continue;
    const Floats<N> values = floats(features[p]);
#pragma unroll
    for (int i = 0; i < N; ++i) squares += values[i] * values[i];
  }
  const float r = 1.0F / sqrtf(team_sum<warps>(squares) / static_cast<float>(hidden) + eps);
#pragma unroll
  for (int p = 0; p < lane_packs; ++p) {
    if (place.feature(p) >= hidden) continue;
    Floats<N> values = floats(features[p]);
    const Floats<N> gains = load_floats<N>(gain + place.feature(p));
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = gains[i] * (values[i] * r);
    store_floats(values, out + row * hidden + place.feature(p));
  }
  if (place.lane == 0) rstd[row] = r;
}

/// The replicas of a position side by side: a warp normalises each and keeps it in shared memory, where all
/// of them are read in the order in which the result lies.
template <int P, class S>
__global__ void __launch_bounds__(P* warp_size)
    rms_norm_interleaved_kernel(const S* x, const S* gain, int hidden, float eps, S* out, float* rstd) {
  constexpr int N = pack_of<S>, F = P < N ? N / P : 1;
  extern __shared__ uint4 kept[];  // [P,H]
  S* rows = reinterpret_cast<S*>(kept);
  __shared__ float rstds[P];
  const int r = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
  const Index row = static_cast<Index>(r) * gridDim.x + blockIdx.x;
  float squares = 0;
#pragma unroll 6
  for (int h = lane * N; h < hidden; h += warp_size * N) {
    const Pack<S, N> pack = load_pack<N>(x + row * hidden + h);
    *reinterpret_cast<Pack<S, N>*>(rows + r * hidden + h) = pack;
    const Floats<N> values = floats(pack);
#pragma unroll
    for (int i = 0; i < N; ++i) squares += values[i] * values[i];
  }
  const float value = 1.0F / sqrtf(warp_sum(squares) / static_cast<float>(hidden) + eps);
  if (lane == 0) rstd[row] = rstds[r] = value;
  __syncthreads();
#pragma unroll 2
  for (int h = static_cast<int>(threadIdx.x) * F; h < hidden; h += P * warp_size * F) {
    const Floats<F> gains = load_floats<F>(gain + h);
    Floats<F * P> values;
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const Floats<F> own = load_floats<F>(rows + p * hidden + h);
#pragma unroll
      for (int f = 0; f < F; ++f) values[f * P + p] = gains[f] * (own[f] * rstds[p]);
    }
    store_floats(values, out + (static_cast<Index>(blockIdx.x) * hidden + h) * P);
  }
}

/// Any row, and any place of the result: a block a position with its replicas, results written in the order
/// in which they lie.
template <class S>
__global__ void __launch_bounds__(256)
    rms_norm_general_kernel(const S* x, const S* gain, NormPlaces places, float eps, S* out, float* rstd) {
  extern __shared__ float rstds[];  // [P]
  const Index positions = places.rows / places.interleave, hidden = places.hidden;
  const int warp = static_cast<int>(threadIdx.x) / warp_size,
            lane = static_cast<int>(threadIdx.x) % warp_size;
  for (Index r = warp; r < places.interleave; r += 256 / warp_size) {
    const Index row = r * positions + blockIdx.x;
    float squares = 0;
#pragma unroll 4
    for (Index h = lane; h < hidden; h += warp_size)
      squares += load(x + row * hidden + h) * load(x + row * hidden + h);
    const float value = 1.0F / sqrtf(warp_sum(squares) / static_cast<float>(hidden) + eps);
    if (lane == 0) rstd[row] = rstds[r] = value;
  }
  __syncthreads();
  const int replicas = static_cast<int>(places.interleave), all = static_cast<int>(hidden) * replicas;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < all; i += 256) {
    const int h = i / replicas, r = i % replicas;
    const float value = load(x + (r * positions + blockIdx.x) * hidden + h);
    store(load(gain + h) * (value * rstds[r]), out + static_cast<Index>(blockIdx.x) * all + i);
  }
}

/// Whether it ran: P is 2, 4 or 8, rows lie evenly and fit into shared memory.
template <class S>
bool rms_norm_interleaved(const Launch& on, const op::RmsNorm<S, float>& a) {
  const Index hidden = a.x.cols(), bytes = a.interleave * hidden * static_cast<Index>(sizeof(S));
  if (!packs<S>(hidden, a.x.data, a.gain.data, a.out.data) || bytes > 48 * 1024) return false;
  const auto run = [&](auto kernel) {
    kernel<<<static_cast<unsigned>(a.x.rows() / a.interleave),
             static_cast<unsigned>(a.interleave) * warp_size, static_cast<std::size_t>(bytes), on.stream>>>(
        a.x.data, a.gain.data, static_cast<int>(hidden), static_cast<float>(a.eps), a.out.data, a.rstd.data);
    return true;
  };
  if (a.interleave == 2) return run(rms_norm_interleaved_kernel<2, S>);
  if (a.interleave == 4) return run(rms_norm_interleaved_kernel<4, S>);
  if (a.interleave == 8) return run(rms_norm_interleaved_kernel<8, S>);
  return false;
}

template <class S>
void rms_norm(const Launch& on, const op::RmsNorm<S, float>& a) {
  const Index rows = a.x.rows(), hidden = a.x.cols();
  if (rows == 0) return;
  const float eps = static_cast<float>(a.eps);
  const NormTeam team = NormTeam::of<S>(hidden, a.x.data, a.gain.data, a.out.data);
  if (a.interleave == 1 && team.packs > 0)
    team.call([&]<int packs, int warps>(Int<packs>, Int<warps>) {
      constexpr Index teams = norm_threads / (warps * warp_size);
      rms_norm_kernel<packs, warps, S><<<blocks_for(rows, teams), norm_threads, 0, on.stream>>>(
          a.x.data, a.gain.data, static_cast<int>(hidden), rows, eps, a.out.data, a.rstd.data);
    });
  else if (!rms_norm_interleaved(on, a))
    rms_norm_general_kernel<S><<<static_cast<unsigned>(rows / a.interleave), 256,
                                 static_cast<std::size_t>(a.interleave) * sizeof(float), on.stream>>>(
        a.x.data, a.gain.data, {rows, hidden, a.interleave}, eps, a.out.data, a.rstd.data);
  check(cudaGetLastError(), "rms_norm");
}

/// What the backward's kernels read and write; `partial` [blocks,H] takes each block's share of d_gain.
template <class S>
struct NormGradient {
  const S *x, *gain;
  const float* rstd;
  const S *d_out, *d_residual;
  S *d_x, *normed;
  float* partial;
  NormPlaces places;

  /// Features h ... h + N of d_out's row.
  template <int N>
  __device__ Pack<S, N> d_out_pack(Index row, int h) const {
    if (places.interleave == 1) return load_pack<N>(d_out + row * places.hidden + h);
    const Index first = places.at(row, h);
    Pack<S, N> pack;
#pragma unroll
    for (int i = 0; i < N; ++i) pack.at[i] = d_out[first + i * places.interleave];
    return pack;
  }
  /// d_x of N features, and what they add to d_gain.
  template <int N>
  __device__ void finish(Index row, int h, const Floats<N>& x_row, const Floats<N>& d_row, float pull,
                         float r, Floats<N>& d_gain) const {
    const Index at = row * places.hidden + h;
    const Floats<N> gains = load_floats<N>(gain + h);
    Floats<N> d{}, normal;
    if (d_residual != nullptr) d = load_floats<N>(d_residual + at);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      normal[i] = x_row[i] * r;
      d_gain[i] += d_row[i] * normal[i];
      d[i] += r * (d_row[i] * gains[i] - pull * normal[i]);
      normal[i] *= gains[i];
    }
    store_floats(d, d_x + at);
    if (normed != nullptr) store_floats(normal, normed + at);
  }
};

/// Blocks of the backward that a multiprocessor holds at once; more would spill registers.
template <int lane_packs>
inline constexpr int norm_gradient_residents = lane_packs <= 2   ? 8
                                               : lane_packs <= 4 ? 4
                                                                 : 2;

/// A few blocks walk over all rows; a lane's share of d_gain stays in its registers until the end.
template <int lane_packs, int warps, class S>
__global__ void __launch_bounds__(norm_threads, norm_gradient_residents<lane_packs>)
    rms_norm_backward_kernel(const NormGradient<S> a) {
  constexpr int N = pack_of<S>;
  const NormLane<N, warps> place;
  const int hidden = static_cast<int>(a.places.hidden);
  Floats<N> d_gain[lane_packs] = {};
  for (Index i = static_cast<Index>(blockIdx.x) * place.teams + place.team; i < a.places.rows;
       i += static_cast<Index>(gridDim.x) * place.teams) {
    const Index row = a.places.row(i);
    Pack<S, N> x[lane_packs] = {}, d_out[lane_packs] = {};
#pragma unroll
    for (int p = 0; p < lane_packs; ++p) {
      const int h = place.feature(p);
      if (h >= hidden) continue;
      x[p] = load_pack<N>(a.x + row * hidden + h);
      d_out[p] = a.template d_out_pack<N>(row, h);
    }
    const float r = a.rstd[row];
    float dot = 0;
#pragma unroll
    for (int p = 0; p < lane_packs; ++p) {
      if (place.feature(p) >= hidden) continue;
      const Floats<N> gains = load_floats<N>(a.gain + place.feature(p)), values = floats(x[p]),
                      d = floats(d_out[p]);
#pragma unroll
      for (int k = 0; k < N; ++k) dot += d[k] * gains[k] * values[k];
    }
    const float pull = team_sum<warps>(dot) * r / static_cast<float>(hidden);
#pragma unroll
    for (int p = 0; p < lane_packs; ++p)
      if (place.feature(p) < hidden)
        a.template finish<N>(row, place.feature(p), floats(x[p]), floats(d_out[p]), pull, r, d_gain[p]);
  }
  if (a.partial == nullptr) return;
  extern __shared__ float sums[];  // [teams,H]
#pragma unroll
  for (int p = 0; p < lane_packs; ++p)
    if (place.feature(p) < hidden) store_floats(d_gain[p], sums + place.team * hidden + place.feature(p));
  __syncthreads();
  for (int h = static_cast<int>(threadIdx.x); h < hidden; h += norm_threads) {
    float total = 0;
    for (int t = 0; t < place.teams; ++t) total += sums[t * hidden + h];
    a.partial[static_cast<Index>(blockIdx.x) * hidden + h] = total;
  }
}

/// Any row: a block walks over rows one by one, its share of d_gain in memory.
template <class S>
__global__ void __launch_bounds__(256) rms_norm_backward_general_kernel(const NormGradient<S> a) {
  const Index hidden = a.places.hidden;
  float* partial = a.partial == nullptr ? nullptr : a.partial + static_cast<Index>(blockIdx.x) * hidden;
  for (Index h = threadIdx.x; partial != nullptr && h < hidden; h += 256) partial[h] = 0;
  for (Index row = blockIdx.x; row < a.places.rows; row += gridDim.x) {
    const S* x = a.x + row * hidden;
    const float r = a.rstd[row];
    float dot = 0;
    for (Index h = threadIdx.x; h < hidden; h += 256)
      dot += load(a.d_out + a.places.at(row, h)) * load(a.gain + h) * load(x + h);
    const float pull = block_sum(dot) * r / static_cast<float>(hidden);
    for (Index h = threadIdx.x; h < hidden; h += 256) {
      Floats<1> d_gain{};
      a.template finish<1>(row, static_cast<int>(h), {load(x + h)}, {load(a.d_out + a.places.at(row, h))},
                           pull, r, d_gain);
      if (partial != nullptr) partial[h] += d_gain[0];
    }
  }
}

/// Blocks of the backward, each with a partial d_gain.
inline int norm_gradient_blocks(const Launch& on, Index rows) {
  return static_cast<int>(
      std::min<Index>((rows + 3) / 4, Index{on.multiprocessors} * norm_gradient_residents<2>));
}
/// Bytes of scratch that rms_norm_backward takes.
inline std::size_t rms_norm_backward_scratch(const Launch& on, Index rows, Index hidden) {
  return static_cast<std::size_t>(norm_gradient_blocks(on, rows) * hidden) * sizeof(float);
}

template <class S>
void rms_norm_backward(const Launch& on, const op::RmsNormBackward<S, float>& a) {
  const Index rows = a.x.rows(), hidden = a.x.cols();
  if (rows == 0) return;
  const int blocks = norm_gradient_blocks(on, rows);
  NormGradient<S> gradient{a.x.data,
                           a.gain.data,
                           a.rstd.data,
                           a.d_out.data,
                           a.d_residual ? a.d_residual.data : nullptr,
                           a.d_x.data,
                           a.normed.data,
                           nullptr,
                           {rows, hidden, a.interleave}};
  if (a.d_gain) gradient.partial = on.scratch.take<float>(blocks * hidden);
  const NormTeam team = NormTeam::of<S>(hidden, a.x.data, a.gain.data, a.d_out.data, gradient.d_residual,
                                        a.d_x.data, a.normed.data);
  if (team.packs > 0)
    team.call([&]<int packs, int warps>(Int<packs>, Int<warps>) {
      constexpr int teams = norm_threads / (warps * warp_size);
      const std::size_t shared = static_cast<std::size_t>(teams * hidden) * sizeof(float);
      rms_norm_backward_kernel<packs, warps, S><<<blocks, norm_threads, shared, on.stream>>>(gradient);
    });
  else
    rms_norm_backward_general_kernel<S><<<blocks, 256, 0, on.stream>>>(gradient);
  check(cudaGetLastError(), "rms_norm_backward");
  if (a.d_gain)
    add_rows(on, "rms_norm_backward", gradient.partial, blocks, hidden, a.d_gain.data, a.accumulate);
}

}  // namespace parscale::cuda
