/// Attention on Hopper: compares it with a plain float64 kernel over many shapes, then times it.
///
///   attention_benchmark check     a line a shape: greatest error of out (over its greatest) and of log_sum
///   attention_benchmark time      median times; attention_torch.py times PyTorch's kernels
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "parscale/backend/cuda/attention_hopper.cuh"

namespace {

using namespace parscale;

/// One attention call; the axes are backend.hpp's.
struct Case {
  int P, B, S, A, G, T, D = 128;
  bool cut = false;

  Index rows() const { return Index{P} * B * S; }
  Index qkv() const { return rows() * (A + 2 * G) * D; }
  Index prefix() const { return Index{P} * G * T * D; }
  /// Multiplications and additions, what the diagonal hides not counted.
  double operations() const { return 4.0 * P * B * A * D * S * (S / 2.0 + T); }
};

template <class T>
class Memory {
 public:
  explicit Memory(Index count) : count_(count), buffer_(static_cast<std::size_t>(count) * sizeof(T)) {}
  T* data() { return reinterpret_cast<T*>(buffer_.data()); }
  /// NaN in every number.
  void poison() { cuda::check(cudaMemset(buffer_.data(), 0xff, buffer_.size()), "poison"); }
  std::vector<T> host() const {
    std::vector<T> copy(static_cast<std::size_t>(count_));
    cuda::check(cudaMemcpy(copy.data(), buffer_.data(), buffer_.size(), cudaMemcpyDeviceToHost), "copy");
    return copy;
  }
  void from(const std::vector<T>& host) {
    cuda::check(cudaMemcpy(buffer_.data(), host.data(), buffer_.size(), cudaMemcpyHostToDevice), "copy");
  }

 private:
  Index count_;
  cuda::Buffer buffer_;
};

/// About normal, standard deviation 1.4: a function of (seed, i).
__global__ void fill_random(BFloat16* out, Index count, unsigned seed) {
  const Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  unsigned x = static_cast<unsigned>(i) * 2654435761U ^ seed * 0x9e3779b9U;
  float sum = 0;
  for (int k = 0; k < 4; ++k) {
    x = (x ^ x >> 16U) * 0x7feb352dU;
    x = (x ^ x >> 15U) * 0x846ca68bU;
    sum += static_cast<float>(x >> 8U) / (1 << 24) - 0.5F;
  }
  cuda::store(sum * 2.4F, out + i);
}

/// What a call reads and writes. Outputs are followed by memory that must stay as it is.
struct Operands {
  static constexpr Index guard = 4096;
  Case c;
  Memory<BFloat16> qkv, prefix_k, prefix_v, out;
  Memory<float> log_sum;
  Memory<std::int32_t> starts;

  Operands(const Case& of, unsigned seed)
      : c(of),
        qkv(c.qkv()),
        prefix_k(c.prefix()),
        prefix_v(c.prefix()),
        out(c.rows() * c.A * c.D + guard),
        log_sum(c.rows() * c.A + guard),
        starts(Index{c.B} * c.S) {
    const auto fill = [seed](Memory<BFloat16>& m, Index count, unsigned part) {
      if (count > 0)
        fill_random<<<static_cast<unsigned>((count + 255) / 256), 256>>>(m.data(), count, seed * 3 + part);
    };
    fill(qkv, c.qkv(), 0);
    fill(prefix_k, c.prefix(), 1);
    fill(prefix_v, c.prefix(), 2);
    starts.from(documents(seed));
    out.poison();
    log_sum.poison();
  }

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

  op::Attend<BFloat16, float> call() {
    const Index rows = c.rows();
    op::Attend<BFloat16, float> a{.layout = {.sequences = c.B, .tokens = c.S, .replicas = c.P},
                                  .heads = c.A,
                                  .kv_heads = c.G,
                                  .qkv = {qkv.data(), {rows, (c.A + 2 * c.G) * c.D}},
                                  .out = {out.data(), {rows, c.A * c.D}},
                                  .log_sum = {log_sum.data(), {rows, c.A}}};
    if (c.T > 0) {
      a.prefix_k = {prefix_k.data(), {c.P, c.G, c.T, c.D}};
      a.prefix_v = {prefix_v.data(), {c.P, c.G, c.T, c.D}};
    }
    if (c.cut) a.layout.starts = {starts.data(), {c.B, c.S}};
    return a;
  }
};

/// The definition, one block a (row, head): rows 0, every, 2 every, ...
__global__ void reference(op::Attend<BFloat16, float> a, int dim, Index every, double* out, double* log_sum) {
  extern __shared__ double weights[];
  const Index row = blockIdx.x * every, head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
  const Index tokens = a.layout.tokens, stream = row / tokens, token = row % tokens, width = a.qkv.cols();
  const Index T = a.prefix_k ? a.prefix_k.extent[2] : 0;
  const Index start =
      a.layout.starts ? a.layout.starts.data[stream % a.layout.sequences * tokens + token] : 0;
  const Index prefix_at = (stream / a.layout.sequences * a.kv_heads + kv_head) * T;
  const Index count = T + token - start + 1;
  const auto row_of = [&](In<BFloat16> prefix, Index first_head, Index j) {
    return j < T ? prefix.data + (prefix_at + j) * dim
                 : a.qkv.data + (stream * tokens + start + j - T) * width + (first_head + kv_head) * dim;
  };
  const BFloat16* q = a.qkv.data + row * width + head * dim;
  for (Index j = threadIdx.x; j < count; j += blockDim.x) {
    const BFloat16* k = row_of(a.prefix_k, a.heads, j);
    double sum = 0;
    for (int d = 0; d < dim; ++d)
      sum += static_cast<double>(cuda::load(q + d)) * static_cast<double>(cuda::load(k + d));
    weights[j] = sum / sqrt(static_cast<double>(dim));
  }
  __syncthreads();
  double top = weights[0], total = 0, sum = 0;
  for (Index j = 1; j < count; ++j) top = fmax(top, weights[j]);
  __syncthreads();
  for (Index j = threadIdx.x; j < count; j += blockDim.x) weights[j] = exp(weights[j] - top);
  __syncthreads();
  for (Index j = 0; j < count; ++j) total += weights[j];
  const int d = static_cast<int>(threadIdx.x);
  if (d < dim)
    for (Index j = 0; j < count; ++j)
      sum += weights[j] * static_cast<double>(cuda::load(row_of(a.prefix_v, a.heads + a.kv_heads, j) + d));
  const Index place = blockIdx.x * a.heads + head;
  if (d < dim) out[place * dim + d] = sum / total;
  if (d == 0) log_sum[place] = top + log(total);
}

cuda::Launch launch() {
  static cuda::Scratch scratch;
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, 0), "properties");
  return {nullptr, scratch, properties.multiProcessorCount, properties.major * 10 + properties.minor};
}

void attend(const cuda::Launch& on, int D, const op::Attend<BFloat16, float>& a) {
  D == 64 ? cuda::attend_hopper<64>(on, 1, a) : cuda::attend_hopper<128>(on, 1, a);
}

/// The greatest difference over the greatest value; NaN anywhere is infinite.
template <class T, class Value>
double error(const std::vector<T>& got, const std::vector<double>& want, Index row_size, Index every,
             Value value) {
  double worst = 0, greatest = 1e-30;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const auto row = static_cast<Index>(i) / row_size, column = static_cast<Index>(i) % row_size;
    const double difference =
        std::abs(value(got[static_cast<std::size_t>(row * every * row_size + column)]) - want[i]);
    worst = difference <= worst ? worst : (difference == difference ? difference : INFINITY);
    greatest = std::max(greatest, std::abs(want[i]));
  }
  return worst / greatest;
}

template <class T>
bool untouched(const std::vector<T>& host) {
  const auto* end = reinterpret_cast<const unsigned char*>(host.data() + host.size());
  return std::all_of(end - Operands::guard * sizeof(T), end, [](unsigned char c) { return c == 0xff; });
}

bool check_case(const cuda::Launch& on, const Case& c, unsigned seed) {
  Operands operands(c, seed);
  const auto a = operands.call();
  attend(on, c.D, a);
  const auto out = operands.out.host();
  const auto log_sum = operands.log_sum.host();
  attend(on, c.D, a);
  const auto again = operands.out.host();
  const bool same = std::memcmp(out.data(), again.data(), out.size() * sizeof(BFloat16)) == 0;

  const Index every = c.rows() > 4000 ? 61 : 1, sampled = (c.rows() + every - 1) / every;
  Memory<double> want(sampled * c.A * c.D), want_log(sampled * c.A);
  reference<<<dim3(static_cast<unsigned>(sampled), static_cast<unsigned>(c.A)), 128,
              static_cast<std::size_t>(c.S + c.T) * sizeof(double)>>>(a, c.D, every, want.data(),
                                                                      want_log.data());
  cuda::check(cudaGetLastError(), "reference");
  const double e =
      error(out, want.host(), Index{c.A} * c.D, every, [](BFloat16 x) { return static_cast<double>(x); });
  const double e_log =
      error(log_sum, want_log.host(), c.A, every, [](float x) { return static_cast<double>(x); });
  const bool good = e < 6e-3 && e_log < 1e-5 && same && untouched(out) && untouched(log_sum);
  std::printf("%s P=%d B=%d S=%d A=%d G=%d T=%d D=%d%s: out %.1e log_sum %.1e%s%s\n", good ? "ok " : "BAD",
              c.P, c.B, c.S, c.A, c.G, c.T, c.D, c.cut ? " cut" : "", e, e_log,
              same ? "" : " differs from run to run",
              untouched(out) && untouched(log_sum) ? "" : " writes outside");
  return good;
}

bool check(const cuda::Launch& on) {
  bool good = true;
  unsigned seed = 1;
  for (int D : {128, 64})
    for (Case c : {Case{1, 1, 128, 1, 1, 0}, Case{1, 1, 128, 1, 1, 48}, Case{1, 1, 17, 2, 1, 48},
                   Case{2, 3, 1, 4, 4, 48}, Case{2, 1, 1, 8, 1, 0}, Case{2, 2, 129, 6, 2, 130},
                   Case{3, 2, 333, 6, 2, 1}, Case{2, 2, 333, 5, 1, 48}, Case{1, 2, 700, 7, 1, 64},
                   Case{4, 2, 2048, 12, 2, 48}})
      for (bool cut : {false, true}) {
        c.D = D;
        c.cut = cut;
        good &= check_case(on, c, ++seed);
      }
  return good;
}

double median_ms(int warm, int runs, auto&& f) {
  cudaEvent_t begin{}, end{};
  cuda::check(cudaEventCreate(&begin), "event");
  cuda::check(cudaEventCreate(&end), "event");
  std::vector<float> times;
  for (int i = 0; i < warm + runs; ++i) {
    cuda::check(cudaEventRecord(begin), "event");
    f(i);
    cuda::check(cudaEventRecord(end), "event");
    cuda::check(cudaEventSynchronize(end), "event");
    float ms = 0;
    cuda::check(cudaEventElapsedTime(&ms, begin, end), "event");
    if (i >= warm) times.push_back(ms);
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<std::size_t>(runs) / 2];
}

void time_case(const cuda::Launch& on, const Case& c) {
  Operands first(c, 7), second(c, 8);
  const auto a = first.call(), b = second.call();
  const double ms = median_ms(5, 30, [&](int i) { attend(on, c.D, i % 2 == 0 ? a : b); });
  std::printf("P=%d B=%d S=%d A=%d G=%d T=%d D=%d%s: %.4f ms, %.0f TFLOP/s\n", c.P, c.B, c.S, c.A, c.G, c.T,
              c.D, c.cut ? " cut" : "", ms, c.operations() / ms * 1e-9);
}

}  // namespace

int main(int count, char** arguments) {
  const cuda::Launch on = launch();
  const bool only_time = count > 1 && std::strcmp(arguments[1], "time") == 0;
  const bool only_check = count > 1 && std::strcmp(arguments[1], "check") == 0;
  const bool good = only_time || check(on);
  if (!only_check)
    for (const Case& c :
         {Case{4, 4, 2048, 12, 2, 48, 128}, Case{1, 4, 2048, 12, 2, 0, 128}, Case{8, 2, 2048, 12, 2, 48, 128},
          Case{4, 4, 2048, 12, 2, 48, 128, true}, Case{4, 1, 8192, 12, 2, 48, 128},
          Case{4, 4, 2048, 14, 2, 48, 64}, Case{4, 1, 8192, 14, 2, 48, 64}})
      time_case(on, c);
  return good ? 0 : 1;
}
