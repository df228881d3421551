/// Attention word for word in float64 on the device, one thread a query: what the fast kernels are compared
/// with.
#pragma once

#include <parscale/backend/backend.hpp>

namespace parscale::test {

/// One call of any kind. Operands are float64 copies of what the kernels read; absent ones are null.
struct ReferenceAttention {
  int replicas, sequences, tokens, heads, kv_heads, dim, prefix, capacity;
  bool expanded;
  const double *qkv, *keys, *values, *prefix_k, *prefix_v;
  const Index* past;
  const std::int32_t* starts;
  double *out, *log_sum;                    // forward
  const double* d_out;                      // backward
  double *d_qkv, *d_prefix_k, *d_prefix_v;  // added to

  __host__ __device__ Index positions() const { return Index{sequences} * tokens; }
  __host__ __device__ Index rows() const { return replicas * positions(); }
  __host__ __device__ Index width() const { return Index{heads + 2 * kv_heads} * dim; }
  __host__ __device__ Index out_width() const { return Index{expanded ? replicas : 1} * heads * dim; }
};

/// A key that a query sees: where it and its value lie, where their gradients go, which block of out it
/// feeds.
struct ReferenceKey {
  const double *k, *v;
  double *d_k, *d_v;
  int source;
};

/// f(key) for all keys that one query sees.
template <class F>
__device__ void each_key(const ReferenceAttention& a, Index row, int head, F f) {
  const Index n = row % a.positions(), s = n % a.tokens, b = n / a.tokens, stream = row / a.tokens;
  const int r = static_cast<int>(row / a.positions()), g = head / (a.heads / a.kv_heads);
  const int own = a.expanded ? r : 0;
  for (int t = 0; t < a.prefix; ++t) {
    const Index at = ((Index{r} * a.kv_heads + g) * a.prefix + t) * a.dim;
    f(ReferenceKey{a.prefix_k + at, a.prefix_v + at, a.d_prefix_k + at, a.d_prefix_v + at, own});
  }
  const auto in_row = [&](Index key_row, int source) {
    const Index k = key_row * a.width() + (a.heads + g) * a.dim, v = k + a.kv_heads * a.dim;
    f(ReferenceKey{a.qkv + k, a.qkv + v, a.d_qkv + k, a.d_qkv + v, source});
  };
  const Index end = (a.past ? a.past[b] : 0) + s + 1;
  for (Index key = a.starts ? a.starts[n] : 0; key < end; ++key) {
    const Index at = ((stream * a.kv_heads + g) * a.capacity + key) * a.dim;
    if (a.keys)
      f(ReferenceKey{a.keys + at, a.values + at, nullptr, nullptr, own});
    else
      in_row(stream * a.tokens + key, own);
  }
  if (a.expanded)
    for (int p = 0; p < a.replicas; ++p)
      if (p != r) in_row(p * a.positions() + n, p);
}

__device__ inline double reference_dot(const double* a, const double* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

static __global__ void reference_forward(ReferenceAttention a) {
  const Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= a.rows() * a.heads) return;
  const Index row = i / a.heads;
  const int head = static_cast<int>(i % a.heads);
  const double *q = a.qkv + row * a.width() + head * a.dim, scale = 1 / sqrt(static_cast<double>(a.dim));
  double total = 0;
  each_key(a, row, head,
           [&](const ReferenceKey& key) { total += exp(scale * reference_dot(q, key.k, a.dim)); });
  a.log_sum[i] = log(total);
  double* out = a.out + row * a.out_width() + head * a.dim;
  each_key(a, row, head, [&](const ReferenceKey& key) {
    const double weight = exp(scale * reference_dot(q, key.k, a.dim)) / total;
    for (int d = 0; d < a.dim; ++d) out[Index{key.source} * a.heads * a.dim + d] += weight * key.v[d];
  });
}

static __global__ void reference_backward(ReferenceAttention a) {
  const Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= a.rows() * a.heads) return;
  const Index row = i / a.heads, query = row * a.width() + i % a.heads * a.dim;
  const int head = static_cast<int>(i % a.heads);
  const double *q = a.qkv + query, scale = 1 / sqrt(static_cast<double>(a.dim));
  const Index at = row * a.out_width() + head * a.dim, part = Index{a.heads} * a.dim;
  double pull = 0;
  for (int p = 0; p < (a.expanded ? a.replicas : 1); ++p)
    pull += reference_dot(a.d_out + at + p * part, a.out + at + p * part, a.dim);
  each_key(a, row, head, [&](const ReferenceKey& key) {
    const double* d_out = a.d_out + at + key.source * part;
    const double weight = exp(scale * reference_dot(q, key.k, a.dim) - a.log_sum[i]);
    const double d_score = weight * (reference_dot(d_out, key.v, a.dim) - pull) * scale;
    for (int d = 0; d < a.dim; ++d) {
      a.d_qkv[query + d] += d_score * key.k[d];  // nobody else's
      atomicAdd(key.d_k + d, d_score * q[d]);
      atomicAdd(key.d_v + d, weight * d_out[d]);
    }
  });
}

}  // namespace parscale::test
