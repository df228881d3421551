/// Attention calls of the benchmarks: their sizes and operands, and the definition in float64.
#pragma once

#include <string>

#include <parscale/backend/backend.hpp>

#include "check_and_time.cuh"

namespace parscale::bench {

/// One call; the axes are backend.hpp's.
struct AttentionCase {
  int P, B, S, A, G, T, D = 128;
  bool cut = false, frozen_prefix = false;

  Index streams() const { return Index{P} * B; }
  Index rows() const { return streams() * S; }
  Index width() const { return Index{A + 2 * G} * D; }
  Index prefix() const { return Index{P} * G * T * D; }
  /// Multiplications and additions of that many products, what the diagonal hides not counted.
  double operations(int products) const { return 2.0 * products * P * B * A * D * S * (S / 2.0 + T); }
  /// Of a kernel that holds one number a key of its query.
  std::size_t shared_bytes() const { return static_cast<std::size_t>(S + T) * sizeof(double); }

  std::string name() const {
    char text[128];
    std::snprintf(text, sizeof text, "P=%d B=%d S=%d A=%d G=%d T=%d D=%d%s%s", P, B, S, A, G, T, D,
                  cut ? " cut" : "", frozen_prefix ? " frozen" : "");
    return text;
  }
};

/// What both directions read. `out` and whatever a direction writes is its own.
struct AttentionOperands {
  AttentionCase c;
  Memory<BFloat16> qkv, prefix_k, prefix_v;
  Memory<std::int32_t> starts;

  AttentionOperands(const AttentionCase& of, unsigned seed)
      : c(of),
        qkv(c.rows() * c.width()),
        prefix_k(c.prefix()),
        prefix_v(c.prefix()),
        starts(Index{c.B} * c.S) {
    fill_random(qkv, seed);
    fill_random(prefix_k, seed + 1);
    fill_random(prefix_v, seed + 2);
    starts.from(documents(seed));
  }

  /// Fills in what both directions' calls have.
  template <class Call>
  Call read_by(Call a) {
    a.layout = {.sequences = c.B, .tokens = c.S, .replicas = c.P};
    a.heads = c.A;
    a.kv_heads = c.G;
    a.qkv = {qkv.data(), {c.rows(), c.width()}};
    const Extent prefix{c.P, c.G, c.T, c.D};
    if (c.T > 0) a.prefix_k = {prefix_k.data(), prefix}, a.prefix_v = {prefix_v.data(), prefix};
    if (c.cut) a.layout.starts = {starts.data(), {c.B, c.S}};
    return a;
  }

 private:
  /// Documents of lengths from 1 to S.
  std::vector<std::int32_t> documents(unsigned seed) const {
    std::vector<std::int32_t> first(static_cast<std::size_t>(c.B * c.S));
    unsigned x = seed;
    for (int b = 0; b < c.B; ++b)
      for (int i = 0, start = 0; i < c.S; ++i) {
        x = x * 1664525U + 1013904223U;
        if ((x >> 16U) % static_cast<unsigned>(c.S / 3 + 2) == 0) start = i;
        first[static_cast<std::size_t>(b * c.S + i)] = start;
      }
    return first;
  }
};

/// Keys and weights by the definition. Keys of a stream are counted with the prefix in front.
template <class Call>
struct AttentionDefinition {
  Call a;
  int dim;
  Index tokens = a.layout.tokens, prefix = a.prefix_k ? a.prefix_k.extent[2] : 0, width = a.qkv.cols();

  __device__ Index kv_head(Index head) const { return head / (a.heads / a.kv_heads); }
  __device__ const BFloat16* query(Index stream, Index head, Index i) const {
    return a.qkv.data + (stream * tokens + i) * width + head * dim;
  }
  __device__ const BFloat16* key_or_value(Index stream, Index kv_head, Index j, bool value) const {
    const In<BFloat16>& of_prefix = value ? a.prefix_v : a.prefix_k;
    if (j < prefix)
      return of_prefix.data + ((stream / a.layout.sequences * a.kv_heads + kv_head) * prefix + j) * dim;
    const Index column = a.heads + (value ? a.kv_heads : 0) + kv_head;
    return a.qkv.data + (stream * tokens + j - prefix) * width + column * dim;
  }
  __device__ bool sees(Index stream, Index i, Index j) const {
    const std::int32_t* starts = a.layout.starts.data;
    const Index start = starts != nullptr ? starts[stream % a.layout.sequences * tokens + i] : 0,
                own = j - prefix;
    return j < prefix || (own >= start && own <= i);
  }
  __device__ double dot(const BFloat16* x, const BFloat16* y) const {
    double sum = 0;
    for (int d = 0; d < dim; ++d)
      sum += static_cast<double>(cuda::load(x + d)) * static_cast<double>(cuda::load(y + d));
    return sum;
  }
  __device__ double score(Index stream, Index head, Index i, Index j) const {
    return dot(query(stream, head, i), key_or_value(stream, kv_head(head), j, false)) /
           sqrt(static_cast<double>(dim));
  }
};

template <class T>
__device__ void store_result(double value, T* to) {
  if constexpr (std::is_same_v<T, BFloat16>)
    cuda::store(static_cast<float>(value), to);
  else
    *to = static_cast<T>(value);
}

/// out [rows / every,A,D] and log_sum of the rows 0, every, 2 every, ...; a block of at least D threads a
/// (row, head), with AttentionCase::shared_bytes().
template <class Call, class T, class L>
__global__ void forward_reference(AttentionDefinition<Call> of, Index every, T* out, L* log_sum) {
  extern __shared__ double weights[];
  const Index row = blockIdx.x * every, head = blockIdx.y, stream = row / of.tokens, i = row % of.tokens;
  const Index count = of.prefix + i + 1, place = static_cast<Index>(blockIdx.x) * of.a.heads + head;
  for (Index j = threadIdx.x; j < count; j += blockDim.x)
    weights[j] = of.sees(stream, i, j) ? of.score(stream, head, i, j) : -INFINITY;
  __syncthreads();
  double top = -INFINITY, total = 0, sum = 0;
  for (Index j = 0; j < count; ++j) top = fmax(top, weights[j]);
  __syncthreads();
  for (Index j = threadIdx.x; j < count; j += blockDim.x) weights[j] = exp(weights[j] - top);
  __syncthreads();
  for (Index j = 0; j < count; ++j) total += weights[j];
  const int d = static_cast<int>(threadIdx.x);
  if (d == 0) store_result(top + log(total), log_sum + place);
  if (d >= of.dim) return;
  for (Index j = 0; j < count; ++j)
    sum +=
        weights[j] * static_cast<double>(cuda::load(of.key_or_value(stream, of.kv_head(head), j, true) + d));
  store_result(sum / total, out + place * of.dim + d);
}

/// The shapes that are compared with the definition, by f(case, seed); `last` is the largest.
template <class F>
bool check_shapes(AttentionCase last, F f) {
  bool good = true;
  unsigned seed = 1;
  for (int D : {128, 64})
    for (AttentionCase c : {AttentionCase{1, 1, 128, 1, 1, 0}, AttentionCase{1, 1, 128, 1, 1, 48},
                            AttentionCase{1, 1, 17, 2, 1, 48}, AttentionCase{2, 3, 1, 4, 4, 48},
                            AttentionCase{2, 1, 1, 8, 1, 0}, AttentionCase{2, 2, 129, 6, 2, 130},
                            AttentionCase{3, 2, 333, 6, 2, 1}, AttentionCase{2, 2, 333, 5, 1, 48},
                            AttentionCase{1, 2, 700, 7, 1, 64}, last})
      for (bool cut : {false, true}) {
        c.D = D;
        c.cut = cut;
        good &= f(c, ++seed);
      }
  return good;
}

}  // namespace parscale::bench
