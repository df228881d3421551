/// Attention's backward on Hopper: compares it with plain float64 kernels over many shapes, then times it.
///
///   attention_backward_benchmark check     a line a shape: greatest errors of d_q, d_k, d_v, d_prefix_k,
///   d_prefix_v, each
///                                          over the greatest value
///   attention_backward_benchmark time      median times, whole and by kernel; attention_torch.py times
///   PyTorch's
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "parscale/backend/cuda/attention_backward_hopper.cuh"

namespace {

using namespace parscale;

/// One call; the axes are backend.hpp's.
struct Case {
  int P, B, S, A, G, T, D = 128;
  bool cut = false, frozen_prefix = false;

  Index streams() const { return Index{P} * B; }
  Index rows() const { return streams() * S; }
  Index width() const { return Index{A + 2 * G} * D; }
  Index prefix() const { return Index{P} * G * T * D; }
  /// Of five products, what the diagonal hides not counted.
  double operations() const { return 10.0 * P * B * A * D * S * (S / 2.0 + T); }
};

template <class T>
class Memory {
 public:
  explicit Memory(Index count) : count_(count), buffer_(static_cast<std::size_t>(count) * sizeof(T)) {}
  T* data() { return reinterpret_cast<T*>(buffer_.data()); }
  Index count() const { return count_; }
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
template <class T>
__global__ void random_kernel(T* out, Index count, unsigned seed) {
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
template <class T>
void fill_random(Memory<T>& memory, unsigned seed) {
  if (memory.count() > 0)
    random_kernel<<<static_cast<unsigned>((memory.count() + 255) / 256), 256>>>(memory.data(), memory.count(),
                                                                                seed);
}

using Call = op::AttendBackward<BFloat16, float>;

/// Keys and weights by the definition, in float64. Keys of a stream are counted with the prefix in front.
struct Definition {
  Call a;
  int dim;
  Index tokens = a.layout.tokens, prefix = a.prefix_k ? a.prefix_k.extent[2] : 0, width = a.qkv.cols();

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
    const Index kv_head = head / (a.heads / a.kv_heads);
    return dot(query(stream, head, i), key_or_value(stream, kv_head, j, false)) /
           sqrt(static_cast<double>(dim));
  }
  /// A pair's weight, and the gradient of its product q k.
  __device__ double2 weight(Index stream, Index head, Index i, Index j) const {
    const Index row = stream * tokens + i, at = (row * a.heads + head) * dim;
    const Index kv_head = head / (a.heads / a.kv_heads);
    const double p =
        exp(score(stream, head, i, j) - static_cast<double>(a.log_sum.data[row * a.heads + head]));
    const double pull = dot(a.d_out.data + at, a.out.data + at);
    const double d_p = dot(a.d_out.data + at, key_or_value(stream, kv_head, j, true));
    return {p, p * (d_p - pull) / sqrt(static_cast<double>(dim))};
  }
};

/// out and log_sum; a block a (row, head).
__global__ void forward_reference(Definition of, BFloat16* out, float* log_sum) {
  extern __shared__ double weights[];
  const Index row = blockIdx.x, head = blockIdx.y, stream = row / of.tokens, i = row % of.tokens;
  const Index count = of.prefix + i + 1;
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
  const Index kv_head = head / (of.a.heads / of.a.kv_heads), place = row * of.a.heads + head;
  if (d < of.dim) {
    for (Index j = 0; j < count; ++j)
      sum += weights[j] * static_cast<double>(cuda::load(of.key_or_value(stream, kv_head, j, true) + d));
    cuda::store(static_cast<float>(sum / total), out + place * of.dim + d);
  }
  if (d == 0) log_sum[place] = static_cast<float>(top + log(total));
}

/// d_q [rows / every,A,D]; a block a (row, head).
__global__ void query_reference(Definition of, Index every, double* d_q) {
  extern __shared__ double d_scores[];
  const Index row = blockIdx.x * every, head = blockIdx.y, stream = row / of.tokens, i = row % of.tokens;
  const Index count = of.prefix + i + 1, kv_head = head / (of.a.heads / of.a.kv_heads);
  for (Index j = threadIdx.x; j < count; j += blockDim.x)
    d_scores[j] = of.sees(stream, i, j) ? of.weight(stream, head, i, j).y : 0;
  __syncthreads();
  const int d = static_cast<int>(threadIdx.x);
  if (d >= of.dim) return;
  double sum = 0;
  for (Index j = 0; j < count; ++j)
    sum += d_scores[j] * static_cast<double>(cuda::load(of.key_or_value(stream, kv_head, j, false) + d));
  d_q[(static_cast<Index>(blockIdx.x) * of.a.heads + head) * of.dim + d] = sum;
}

/// d_k and d_v [2,streams,G,keys,D] of the keys first, first + every, ...; a block of 128 a (key, head,
/// stream).
__global__ void key_reference(Definition of, Index first, Index every, double* d_kv) {
  __shared__ double2 weights[128];
  const Index j = first + blockIdx.x * every, kv_head = blockIdx.y, stream = blockIdx.z;
  const Index group = of.a.heads / of.a.kv_heads;
  const int d = static_cast<int>(threadIdx.x);
  double d_k = 0, d_v = 0;
  for (Index head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (Index from = 0; from < of.tokens; from += 128) {
      const Index i = from + d;
      __syncthreads();
      weights[d] = {0, 0};
      if (i < of.tokens && of.sees(stream, i, j)) weights[d] = of.weight(stream, head, i, j);
      __syncthreads();
      if (d >= of.dim) continue;
      for (Index n = 0; n < min(Index{128}, of.tokens - from); ++n) {
        const Index row = stream * of.tokens + from + n;
        d_k += weights[n].y * static_cast<double>(cuda::load(of.query(stream, head, from + n) + d));
        d_v += weights[n].x *
               static_cast<double>(cuda::load(of.a.d_out.data + (row * of.a.heads + head) * of.dim + d));
      }
    }
  if (d >= of.dim) return;
  const Index at = ((stream * of.a.kv_heads + kv_head) * gridDim.x + blockIdx.x) * of.dim + d;
  d_kv[at] = d_k;
  d_kv[static_cast<Index>(gridDim.z) * gridDim.y * gridDim.x * of.dim + at] = d_v;
}

/// What a call reads and writes. d_qkv is followed by memory that must stay as it is.
struct Operands {
  static constexpr Index guard = 4096;
  Case c;
  Memory<BFloat16> qkv, prefix_k, prefix_v, out, d_out, d_qkv;
  Memory<float> log_sum, d_prefix_k, d_prefix_v;
  Memory<std::int32_t> starts;

  /// Timing needs no true forward; checks do.
  Operands(const Case& of, unsigned seed, bool true_forward)
      : c(of),
        qkv(c.rows() * c.width()),
        prefix_k(c.prefix()),
        prefix_v(c.prefix()),
        out(c.rows() * c.A * c.D),
        d_out(c.rows() * c.A * c.D),
        d_qkv(c.rows() * c.width() + guard),
        log_sum(c.rows() * c.A),
        d_prefix_k(c.prefix()),
        d_prefix_v(c.prefix()),
        starts(Index{c.B} * c.S) {
    fill_random(qkv, seed * 4);
    fill_random(prefix_k, seed * 4 + 1);
    fill_random(prefix_v, seed * 4 + 2);
    fill_random(d_out, seed * 4 + 3);
    starts.from(documents(seed));
    d_qkv.poison();
    if (!true_forward) {
      fill_random(out, seed * 4 + 4);
      log_sum.from(std::vector<float>(static_cast<std::size_t>(log_sum.count()), 8.0F));
      return;
    }
    forward_reference<<<dim3(static_cast<unsigned>(c.rows()), static_cast<unsigned>(c.A)), 128, shared()>>>(
        {call(), c.D}, out.data(), log_sum.data());
    cuda::check(cudaGetLastError(), "forward_reference");
  }
  std::size_t shared() const { return static_cast<std::size_t>(c.S + c.T) * sizeof(double); }

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

  Call call() {
    const Index rows = c.rows();
    Call a{.layout = {.sequences = c.B, .tokens = c.S, .replicas = c.P},
           .heads = c.A,
           .kv_heads = c.G,
           .qkv = {qkv.data(), {rows, c.width()}},
           .out = {out.data(), {rows, Index{c.A} * c.D}},
           .log_sum = {log_sum.data(), {rows, c.A}},
           .d_out = {d_out.data(), {rows, Index{c.A} * c.D}},
           .d_qkv = {d_qkv.data(), {rows, c.width()}}};
    const Extent prefix{c.P, c.G, c.T, c.D};
    if (c.T > 0) a.prefix_k = {prefix_k.data(), prefix}, a.prefix_v = {prefix_v.data(), prefix};
    if (c.T > 0 && !c.frozen_prefix)
      a.d_prefix_k = {d_prefix_k.data(), prefix}, a.d_prefix_v = {d_prefix_v.data(), prefix};
    if (c.cut) a.layout.starts = {starts.data(), {c.B, c.S}};
    return a;
  }
};

/// The greatest difference over the greatest value; NaN anywhere is infinite.
struct Error {
  double worst = 0, greatest = 1e-30;

  void add(double got, double want) {
    const double difference = std::abs(got - want);
    worst = std::max(worst, std::isnan(difference) ? INFINITY : difference);
    greatest = std::max(greatest, std::abs(want));
  }
  double relative() const { return worst / greatest; }
};

/// What one call left behind, on the host.
struct Results {
  std::vector<BFloat16> d_qkv;
  std::vector<float> d_prefix_k, d_prefix_v;

  bool operator==(const Results& other) const {
    const auto same = [](const auto& x, const auto& y) {
      return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(x[0])) == 0;
    };
    return same(d_qkv, other.d_qkv) && same(d_prefix_k, other.d_prefix_k) &&
           same(d_prefix_v, other.d_prefix_v);
  }
  bool guard_untouched() const {
    return std::all_of(d_qkv.end() - Operands::guard, d_qkv.end(),
                       [](BFloat16 x) { return x.bits == 0xffff; });
  }
};

cuda::Launch launch() {
  static cuda::Scratch scratch;
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, 0), "properties");
  return {nullptr, scratch, properties.multiProcessorCount, properties.major * 10 + properties.minor};
}

float* scratch(const cuda::Launch& on, int D, const Call& a) {
  const Index prefix = a.d_prefix_k ? a.prefix_k.extent[2] : 0;
  return on.scratch.take<float>(
      cuda::attend_backward_hopper_scratch(a.layout, a.heads, a.kv_heads, D, prefix));
}
void attend_backward(const cuda::Launch& on, int D, const Call& a) {
  float* memory = scratch(on, D, a);
  D == 64 ? cuda::attend_backward_hopper<64>(on, 1, a, memory)
          : cuda::attend_backward_hopper<128>(on, 1, a, memory);
}

/// The prefix's gradients begin as 100 + i % 7: they are added to.
float before(Index i) { return static_cast<float>(100 + i % 7); }

Results run(const cuda::Launch& on, Operands& operands) {
  std::vector<float> start(static_cast<std::size_t>(operands.c.prefix()));
  for (std::size_t i = 0; i < start.size(); ++i) start[i] = before(static_cast<Index>(i));
  operands.d_prefix_k.from(start), operands.d_prefix_v.from(start);
  operands.d_qkv.poison();
  attend_backward(on, operands.c.D, operands.call());
  return {operands.d_qkv.host(), operands.d_prefix_k.host(), operands.d_prefix_v.host()};
}

double element(const std::vector<BFloat16>& of, Index i) {
  return static_cast<double>(of[static_cast<std::size_t>(i)]);
}

Error query_error(Operands& operands, const Results& got, Index every) {
  const Case& c = operands.c;
  const Index sampled = (c.rows() + every - 1) / every, row_size = Index{c.A} * c.D;
  Memory<double> want(sampled * row_size);
  query_reference<<<dim3(static_cast<unsigned>(sampled), static_cast<unsigned>(c.A)), 128,
                    operands.shared()>>>({operands.call(), c.D}, every, want.data());
  cuda::check(cudaGetLastError(), "query_reference");
  const auto host = want.host();
  Error error;
  for (Index i = 0; i < want.count(); ++i)
    error.add(element(got.d_qkv, i / row_size * every * c.width() + i % row_size),
              host[static_cast<std::size_t>(i)]);
  return error;
}

/// d_k and d_v [2,streams,G,count,D] of the keys first, first + every, ... as the definition has them.
std::vector<double> key_gradients(Operands& operands, Index first, Index every, Index count) {
  const Case& c = operands.c;
  Memory<double> want(2 * c.streams() * c.G * count * c.D);
  const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(c.G),
                  static_cast<unsigned>(c.streams()));
  key_reference<<<grid, 128>>>({operands.call(), c.D}, first, every, want.data());
  cuda::check(cudaGetLastError(), "key_reference");
  return want.host();
}

/// Errors of d_k and d_v.
std::array<Error, 2> key_errors(Operands& operands, const Results& got, Index every) {
  const Case& c = operands.c;
  const Index count = (c.S + every - 1) / every;
  const auto want = key_gradients(operands, c.T, every, count);
  std::array<Error, 2> errors;
  for (Index i = 0; i < static_cast<Index>(want.size()); ++i) {
    const Index d = i % c.D, key = i / c.D % count * every, head = i / c.D / count % c.G;
    const Index stream = i / c.D / count / c.G % c.streams(), which = i / c.D / count / c.G / c.streams();
    const Index at = (stream * c.S + key) * c.width() + (c.A + which * c.G + head) * c.D + d;
    errors[static_cast<std::size_t>(which)].add(element(got.d_qkv, at), want[static_cast<std::size_t>(i)]);
  }
  return errors;
}

/// Errors of d_prefix_k and d_prefix_v, whose streams are summed.
std::array<Error, 2> prefix_errors(Operands& operands, const Results& got) {
  const Case& c = operands.c;
  std::array<Error, 2> errors;
  if (c.T == 0) return errors;
  const auto want = key_gradients(operands, 0, 1, c.T);
  const Index inner = Index{c.G} * c.T * c.D;
  for (Index which = 0; which < 2; ++which)
    for (Index i = 0; i < c.prefix(); ++i) {
      double sum = 0;
      for (Index b = 0; b < c.B; ++b)
        sum +=
            want[static_cast<std::size_t>((which * c.streams() + i / inner * c.B + b) * inner + i % inner)];
      const float after = (which == 0 ? got.d_prefix_k : got.d_prefix_v)[static_cast<std::size_t>(i)];
      errors[static_cast<std::size_t>(which)].add(static_cast<double>(after - before(i)),
                                                  c.frozen_prefix ? 0 : sum);
    }
  return errors;
}

bool check_case(const cuda::Launch& on, const Case& c, unsigned seed) {
  Operands operands(c, seed, true);
  const Results got = run(on, operands), again = run(on, operands);
  const Index every = c.rows() > 4000 ? 61 : 1;
  const Error d_q = query_error(operands, got, every);
  const auto d_kv = key_errors(operands, got, std::min<Index>(every, c.S)),
             d_prefix = prefix_errors(operands, got);
  const double worst = std::max({d_q.relative(), d_kv[0].relative(), d_kv[1].relative()});
  // with one key in sight d_q and d_k vanish, and what is left of them is rounding
  const bool good = (c.S + c.T == 1 || worst < 1.2e-2) && d_kv[1].relative() < 1.2e-2 &&
                    (c.frozen_prefix ? d_prefix[0].worst == 0 && d_prefix[1].worst == 0
                                     : std::max(d_prefix[0].relative(), d_prefix[1].relative()) < 1.2e-2) &&
                    got == again && got.guard_untouched();
  std::printf("%s P=%d B=%d S=%d A=%d G=%d T=%d D=%d%s%s: %.1e %.1e %.1e %.1e %.1e%s%s\n",
              good ? "ok " : "BAD", c.P, c.B, c.S, c.A, c.G, c.T, c.D, c.cut ? " cut" : "",
              c.frozen_prefix ? " frozen" : "", d_q.relative(), d_kv[0].relative(), d_kv[1].relative(),
              d_prefix[0].relative(), d_prefix[1].relative(), got == again ? "" : " differs from run to run",
              got.guard_untouched() ? "" : " writes outside");
  return good;
}

bool check(const cuda::Launch& on) {
  bool good = true;
  unsigned seed = 1;
  for (int D : {128, 64})
    for (Case c : {Case{1, 1, 128, 1, 1, 0}, Case{1, 1, 128, 1, 1, 48}, Case{1, 1, 17, 2, 1, 48},
                   Case{2, 3, 1, 4, 4, 48}, Case{2, 1, 1, 8, 1, 0}, Case{2, 2, 129, 6, 2, 130},
                   Case{3, 2, 333, 6, 2, 1}, Case{2, 2, 333, 5, 1, 48}, Case{1, 2, 700, 7, 1, 64},
                   Case{2, 1, 2048, 12, 2, 48}})
      for (bool cut : {false, true}) {
        c.D = D;
        c.cut = cut;
        c.frozen_prefix = c.S == 333 && cut;
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

/// Whole, then its kernels alone.
template <int D>
void time_case(const cuda::Launch& on, const Case& c) {
  namespace hopper = cuda::hopper;
  Operands first(c, 7, false), second(c, 8, false);
  const Call calls[] = {first.call(), second.call()};
  const hopper::BackwardMaps maps[] = {hopper::backward_maps(D, 1, calls[0]),
                                       hopper::backward_maps(D, 1, calls[1])};
  float* memory = scratch(on, D, calls[0]);
  const hopper::BackwardCall of = hopper::backward_call(D, 1, calls[0], memory);
  const double whole =
      median_ms(5, 30, [&](int i) { cuda::attend_backward_hopper<D>(on, 1, calls[i % 2], memory); });
  const double statistics =
      median_ms(2, 10, [&](int i) { hopper::backward_statistics<D>(on, of, calls[i % 2], memory); });
  const double keys = median_ms(2, 10, [&](int i) { hopper::key_gradients<D>(on, maps[i % 2], of); });
  const double queries = median_ms(2, 10, [&](int i) { hopper::query_gradients<D>(on, maps[i % 2], of); });
  std::printf(
      "P=%d B=%d S=%d A=%d G=%d T=%d D=%d%s: %.4f ms, %.0f TFLOP/s; statistics %.4f keys %.4f queries %.4f\n",
      c.P, c.B, c.S, c.A, c.G, c.T, c.D, c.cut ? " cut" : "", whole, c.operations() / whole * 1e-9,
      statistics, keys, queries);
}

}  // namespace

int main(int count, char** arguments) {
  const cuda::Launch on = launch();
  const bool only_time = count > 1 && std::strcmp(arguments[1], "time") == 0;
  const bool only_check = count > 1 && std::strcmp(arguments[1], "check") == 0;
  const bool good = only_time || check(on);
  if (!only_check)
    for (const Case& c : {Case{4, 4, 2048, 12, 2, 48}, Case{4, 4, 2048, 12, 2, 48, 128, true},
                          Case{1, 4, 2048, 12, 2, 0}, Case{4, 4, 2048, 14, 2, 48, 64}})
      c.D == 64 ? time_case<64>(on, c) : time_case<128>(on, c);
  return good ? 0 : 1;
}
