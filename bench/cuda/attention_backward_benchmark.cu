/// Attention's backward on Hopper: compares it with the definition over many shapes, then times it, whole and
/// by kernel. A line a shape has the greatest errors of d_q, d_k, d_v, d_prefix_k, d_prefix_v, each over the
/// greatest value. attention_torch.py times PyTorch's.
#include <array>

#include <parscale/backend/cuda/attention_backward_hopper.cuh>
#include <parscale/backend/cuda/rotate.cuh>

#include "attention_case.cuh"

namespace {

using namespace parscale;
using namespace parscale::bench;
using Call = op::AttendBackward<BFloat16, float>;
using Definition = AttentionDefinition<Call>;

/// A pair's weight, and the gradient of its product q k.
__device__ double2 weight(const Definition& of, Index stream, Index head, Index i, Index j) {
  const Call& a = of.a;
  const Index row = stream * of.tokens + i, at = (row * a.heads + head) * of.dim;
  const double p =
      exp(of.score(stream, head, i, j) - static_cast<double>(a.log_sum.data[row * a.heads + head]));
  const double pull = of.dot(a.d_out.data + at, a.out.data + at);
  const double d_p = of.dot(a.d_out.data + at, of.key_or_value(stream, of.kv_head(head), j, true));
  return {p, p * (d_p - pull) / sqrt(static_cast<double>(of.dim))};
}

/// d_q [rows / every,A,D]; a block a (row, head).
__global__ void query_reference(Definition of, Index every, double* d_q) {
  extern __shared__ double d_scores[];
  const Index row = blockIdx.x * every, head = blockIdx.y, stream = row / of.tokens, i = row % of.tokens;
  const Index count = of.prefix + i + 1, kv_head = of.kv_head(head);
  for (Index j = threadIdx.x; j < count; j += blockDim.x)
    d_scores[j] = of.sees(stream, i, j) ? weight(of, stream, head, i, j).y : 0;
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
      if (i < of.tokens && of.sees(stream, i, j)) weights[d] = weight(of, stream, head, i, j);
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
struct Operands : AttentionOperands {
  Memory<BFloat16> out, d_out, d_qkv;
  Memory<float> log_sum, d_prefix_k, d_prefix_v;

  /// Timing needs no true forward; checks do.
  Operands(const AttentionCase& of, unsigned seed, bool true_forward)
      : AttentionOperands(of, 4 * seed),
        out(c.rows() * c.A * c.D),
        d_out(c.rows() * c.A * c.D),
        d_qkv(c.rows() * c.width() + guard),
        log_sum(c.rows() * c.A),
        d_prefix_k(c.prefix()),
        d_prefix_v(c.prefix()) {
    fill_random(d_out, seed * 4 + 3);
    d_qkv.poison();
    if (!true_forward) {
      fill_random(out, seed * 4 + 4);
      log_sum.from(std::vector<float>(static_cast<std::size_t>(log_sum.count()), 8.0F));
      return;
    }
    forward_reference<<<dim3(static_cast<unsigned>(c.rows()), static_cast<unsigned>(c.A)), 128,
                        c.shared_bytes()>>>(Definition{call(), c.D}, 1, out.data(), log_sum.data());
    cuda::check(cudaGetLastError(), "forward_reference");
  }

  Call call() {
    const Extent heads{c.rows(), Index{c.A} * c.D}, prefix{c.P, c.G, c.T, c.D};
    Call a = read_by(Call{.out = {out.data(), heads},
                          .log_sum = {log_sum.data(), {c.rows(), c.A}},
                          .d_out = {d_out.data(), heads},
                          .d_qkv = {d_qkv.data(), {c.rows(), c.width()}}});
    if (c.T > 0 && !c.frozen_prefix)
      a.d_prefix_k = {d_prefix_k.data(), prefix}, a.d_prefix_v = {d_prefix_v.data(), prefix};
    return a;
  }
};

/// What one call left behind, on the host.
struct Results {
  std::vector<BFloat16> d_qkv;
  std::vector<float> d_prefix_k, d_prefix_v;

  bool operator==(const Results& other) const {
    return same_bits(d_qkv, other.d_qkv) && same_bits(d_prefix_k, other.d_prefix_k) &&
           same_bits(d_prefix_v, other.d_prefix_v);
  }
};

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

LargestError query_error(Operands& operands, const Results& got, Index every) {
  const AttentionCase& c = operands.c;
  const Index sampled = (c.rows() + every - 1) / every, row_size = Index{c.A} * c.D;
  Memory<double> want(sampled * row_size);
  query_reference<<<dim3(static_cast<unsigned>(sampled), static_cast<unsigned>(c.A)), 128,
                    c.shared_bytes()>>>(Definition{operands.call(), c.D}, every, want.data());
  cuda::check(cudaGetLastError(), "query_reference");
  const auto host = want.host();
  LargestError error;
  for (Index i = 0; i < want.count(); ++i)
    error.add(element(got.d_qkv, i / row_size * every * c.width() + i % row_size),
              host[static_cast<std::size_t>(i)]);
  return error;
}

/// d_k and d_v [2,streams,G,count,D] of the keys first, first + every, ... as the definition has them.
std::vector<double> key_gradients(Operands& operands, Index first, Index every, Index count) {
  const AttentionCase& c = operands.c;
  Memory<double> want(2 * c.streams() * c.G * count * c.D);
  const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(c.G),
                  static_cast<unsigned>(c.streams()));
  key_reference<<<grid, 128>>>(Definition{operands.call(), c.D}, first, every, want.data());
  cuda::check(cudaGetLastError(), "key_reference");
  return want.host();
}

/// Errors of d_k and d_v.
std::array<LargestError, 2> key_errors(Operands& operands, const Results& got, Index every) {
  const AttentionCase& c = operands.c;
  const Index count = (c.S + every - 1) / every;
  const auto want = key_gradients(operands, c.T, every, count);
  std::array<LargestError, 2> errors;
  for (Index i = 0; i < static_cast<Index>(want.size()); ++i) {
    const Index d = i % c.D, key = i / c.D % count * every, head = i / c.D / count % c.G;
    const Index stream = i / c.D / count / c.G % c.streams(), which = i / c.D / count / c.G / c.streams();
    const Index at = (stream * c.S + key) * c.width() + (c.A + which * c.G + head) * c.D + d;
    errors[static_cast<std::size_t>(which)].add(element(got.d_qkv, at), want[static_cast<std::size_t>(i)]);
  }
  return errors;
}

/// Errors of d_prefix_k and d_prefix_v, whose streams are summed.
std::array<LargestError, 2> prefix_errors(Operands& operands, const Results& got) {
  const AttentionCase& c = operands.c;
  std::array<LargestError, 2> errors;
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

bool check_case(const cuda::Launch& on, const AttentionCase& c, unsigned seed) {
  Operands operands(c, seed, true);
  const Results got = run(on, operands), again = run(on, operands);
  const Index every = c.rows() > 4000 ? 61 : 1;
  const LargestError d_q = query_error(operands, got, every);
  const auto d_kv = key_errors(operands, got, std::min<Index>(every, c.S)),
             d_prefix = prefix_errors(operands, got);
  const double worst = std::max({d_q.relative(), d_kv[0].relative(), d_kv[1].relative()});
  const bool inside = guard_untouched(got.d_qkv);
  // with one key in sight d_q and d_k vanish, and what is left of them is rounding
  const bool good = (c.S + c.T == 1 || worst < 1.2e-2) && d_kv[1].relative() < 1.2e-2 &&
                    (c.frozen_prefix ? d_prefix[0].worst == 0 && d_prefix[1].worst == 0
                                     : std::max(d_prefix[0].relative(), d_prefix[1].relative()) < 1.2e-2) &&
                    got == again && inside;
  std::printf("%s %s: %.1e %.1e %.1e %.1e %.1e%s%s\n", good ? "ok " : "BAD", c.name().c_str(), d_q.relative(),
              d_kv[0].relative(), d_kv[1].relative(), d_prefix[0].relative(), d_prefix[1].relative(),
              got == again ? "" : " differs from run to run", inside ? "" : " writes outside");
  return good;
}

/// Whole, then its kernels alone.
template <int D>
void time_case(const cuda::Launch& on, const AttentionCase& c) {
  namespace hopper = cuda::hopper;
  Operands first(c, 7, false), second(c, 8, false);
  const Call calls[] = {first.call(), second.call()};
  const hopper::BackwardMaps maps[] = {hopper::backward_maps(D, 1, calls[0]),
                                       hopper::backward_maps(D, 1, calls[1])};
  float* memory = scratch(on, D, calls[0]);
  cuda::RotaryTables::Table table;
  const float2* turns = cuda::rotary_turns(on, table, c.S, D, 1e6);
  const hopper::BackwardCall of = hopper::backward_call(D, 1, calls[0], memory, nullptr),
                             turned = hopper::backward_call(D, 1, calls[0], memory, turns);
  const double whole =
      median_ms(5, 30, [&](int i) { cuda::attend_backward_hopper<D>(on, 1, calls[i % 2], memory); });
  const double statistics =
      median_ms(2, 10, [&](int i) { hopper::backward_statistics<D>(on, of, calls[i % 2], memory); });
  const double keys = median_ms(2, 10, [&](int i) { hopper::key_gradients<D>(on, maps[i % 2], of); });
  const double queries = median_ms(2, 10, [&](int i) { hopper::query_gradients<D>(on, maps[i % 2], of); });
  const double turned_keys =
      median_ms(2, 10, [&](int i) { hopper::key_gradients<D>(on, maps[i % 2], turned); });
  const double turned_queries =
      median_ms(2, 10, [&](int i) { hopper::query_gradients<D>(on, maps[i % 2], turned); });
  std::printf(
      "%s: %.4f ms, %.0f TFLOP/s; statistics %.4f keys %.4f queries %.4f; "
      "turned back keys %.4f queries %.4f\n",
      c.name().c_str(), whole, c.operations(5) / whole * 1e-9, statistics, keys, queries, turned_keys,
      turned_queries);
}

}  // namespace

int main(int count, char** arguments) {
  return check_and_time(
      count, arguments,
      [](const cuda::Launch& on) {
        return check_shapes({2, 1, 2048, 12, 2, 48}, [&](AttentionCase c, unsigned seed) {
          c.frozen_prefix = c.S == 333 && c.cut;
          return check_case(on, c, seed);
        });
      },
      [](const cuda::Launch& on) {
        time_case<128>(on, {4, 4, 2048, 12, 2, 48});
        time_case<128>(on, {4, 4, 2048, 12, 2, 48, 128, true});
        time_case<128>(on, {1, 4, 2048, 12, 2, 0});
        time_case<64>(on, {4, 4, 2048, 14, 2, 48, 64});
      });
}
