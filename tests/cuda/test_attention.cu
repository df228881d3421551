/// Attention on the GPU against float64, at random shapes: plain and expanded, with and without prefix, cache
/// and documents, forward and backward; P x P attention; two runs give the same bytes.
#include <cstdlib>
#include <string>

#include <parscale/backend/cuda/append.cuh>
#include <parscale/backend/cuda/attend_replicas.cuh>
#include <parscale/backend/cuda/attention_backward.cuh>
#include <parscale/backend/cuda/device.hpp>

#include "attention_cases.cuh"

using namespace parscale;
using namespace parscale::test;

namespace {

struct Case {
  int P, B, S, A, G, D, T;
  bool expanded, cached, documents, separate;
};

int failures = 0;
double worst_forward[2], worst_backward[2];

void report(const Case& c, const char* what, const char* type, double error, double allowed, bool same) {
  if (error <= allowed && same) return;
  ++failures;
  std::printf("FAILED %s %s P%d B%d S%d A%d G%d D%d T%d %s%s%s error %.3g%s\n", what, type, c.P, c.B, c.S,
              c.A, c.G, c.D, c.T, c.expanded ? "expanded " : "", c.cached ? "cached " : "",
              c.documents ? "documents" : "", error, same ? "" : " NOT THE SAME TWICE");
}

template <class S>
constexpr const char* name = sizeof(S) == 4 ? "float" : "bf16";
template <class S>
constexpr double allowed_forward = sizeof(S) == 4 ? 3e-6 : 1.2e-2;
template <class S>
constexpr double allowed_backward = sizeof(S) == 4 ? 2e-5 : 3e-2;

void launch_reference(void (*kernel)(ReferenceAttention), const ReferenceAttention& a) {
  kernel<<<static_cast<unsigned>((a.rows() * a.heads + 63) / 64), 64>>>(a);
  check(cudaGetLastError(), "reference");
}

/// Queries and keys are taken for rotated by the tokens' positions: their gradients before that, by the
/// formula.
void turn_back(double* d_qkv, const Case& c, const std::vector<std::int32_t>& starts, double theta) {
  const int half = c.D / 2, width = (c.A + 2 * c.G) * c.D, rows = c.P * c.B * c.S;
  std::vector<double> rotated(static_cast<std::size_t>(rows * width));
  check(cudaDeviceSynchronize(), "reference");
  check(cudaMemcpy(rotated.data(), d_qkv, rotated.size() * 8, cudaMemcpyDeviceToHost), "download");
  for (int row = 0; row < rows; ++row)
    for (int i = 0; i < (c.A + c.G) * half; ++i) {
      const int n = row % (c.B * c.S), d = i % half;
      const int position = n % c.S - (starts.empty() ? 0 : starts[static_cast<std::size_t>(n)]);
      const double angle = position * std::pow(theta, -2.0 * d / c.D);
      double& low = rotated[static_cast<std::size_t>(row * width + i / half * c.D + d)];
      double &high = (&low)[half], u = low, v = high;
      low = u * std::cos(angle) + v * std::sin(angle);
      high = v * std::cos(angle) - u * std::sin(angle);
    }
  check(cudaMemcpy(d_qkv, rotated.data(), rotated.size() * 8, cudaMemcpyHostToDevice), "upload");
}

template <class S>
void test_attention(const cuda::Launch& on, const Case& c, unsigned seed) {
  const bool accumulate = seed % 3 != 0, rotated = seed % 2 == 0;
  constexpr double theta = 1e4;
  std::mt19937 random(seed);
  const Index M = Index{c.P} * c.B * c.S, width = Index{c.A + 2 * c.G} * c.D;
  const int sources = c.expanded ? c.P : 1;
  const Index prefix = Index{c.P} * c.G * c.T * c.D, outs = M * sources * c.A * c.D;
  std::vector<Index> past(static_cast<std::size_t>(c.B));
  std::vector<std::int32_t> starts;
  for (auto& p : past) p = c.cached ? static_cast<Index>(random() % (c.S == 1 ? 700 : 150)) : 0;
  const Index capacity = c.cached ? *std::max_element(past.begin(), past.end()) + c.S + 3 : 0;
  for (int b = 0; b < c.B && c.documents; ++b)
    for (std::int32_t s = 0, first = 0; s < c.S; ++s)
      starts.push_back(first = random() % 40 == 0 ? s : first);

  Operand<S> qkv(M * width, random, 1), prefix_k(prefix, random, 1), prefix_v(prefix, random, 1);
  Operand<S> keys(c.P * c.B * c.G * capacity * c.D, random, 1),
      values(c.P * c.B * c.G * capacity * c.D, random, 1);
  Operand<S> d_out(outs, random, 1);
  const Buffer past_buffer = Operand<Index>::upload(past),
               starts_buffer = Operand<std::int32_t>::upload(starts);
  Result<S> out(outs), d_qkv(M * width);
  Result<float> log_sum(M * c.A), d_prefix_k(prefix, accumulate ? 0.5F : NAN),
      d_prefix_v(prefix, accumulate ? 0.5F : NAN);
  const In<Index> past_view{reinterpret_cast<const Index*>(past_buffer.data()), {c.B}};
  const In<std::int32_t> starts_view{reinterpret_cast<const std::int32_t*>(starts_buffer.data()), {c.B, c.S}};
  const Layout layout{.sequences = c.B,
                      .tokens = c.S,
                      .replicas = c.P,
                      .past = c.cached ? past_view : In<Index>{},
                      .starts = c.documents ? starts_view : In<std::int32_t>{}};
  const Extent prefix_extent{c.P, c.G, c.T, c.D}, cache{c.P * c.B, c.G, capacity, c.D};

  ReferenceAttention reference{c.P,
                               c.B,
                               c.S,
                               c.A,
                               c.G,
                               c.D,
                               c.T,
                               static_cast<int>(capacity),
                               c.expanded,
                               qkv.wide_data(),
                               keys.wide_data(),
                               values.wide_data(),
                               prefix_k.wide_data(),
                               prefix_v.wide_data(),
                               layout.past ? layout.past.data : nullptr,
                               layout.starts ? layout.starts.data : nullptr,
                               out.wide_data(),
                               log_sum.wide_data(),
                               d_out.wide_data(),
                               d_qkv.wide_data(),
                               d_prefix_k.wide_data(),
                               d_prefix_v.wide_data()};
  launch_reference(reference_forward, reference);
  const auto forward = [&] {
    cuda::attend<S>(on, c.D, sources,
                    {.layout = layout,
                     .heads = c.A,
                     .kv_heads = c.G,
                     .qkv = {qkv.data(), {M, width}},
                     .keys = {keys.data(), cache},
                     .values = {values.data(), cache},
                     .prefix_k = {prefix_k.data(), prefix_extent},
                     .prefix_v = {prefix_v.data(), prefix_extent},
                     .out = {out.poison(), {M, Index{sources} * c.A * c.D}},
                     .log_sum = {log_sum.poison(), {M, c.A}}});
    check(cudaDeviceSynchronize(), "attend");
    return out.values();
  };
  const auto first = forward();
  const bool same = same_bytes(first, forward());
  const double error = std::max(out.error(), log_sum.error() * (sizeof(S) == 4 ? 1 : 0.1));
  worst_forward[sizeof(S) == 2] = std::max(worst_forward[sizeof(S) == 2], error);
  report(c, "attend", name<S>, error, allowed_forward<S>, same);
  if (c.cached) return;

  launch_reference(reference_backward, reference);
  if (rotated) turn_back(d_qkv.wide_data(), c, starts, theta);
  cuda::RotaryTables tables;
  const auto backward = [&] {
    cuda::attend_backward<S>(on, tables, c.D, sources,
                             {.layout = layout,
                              .heads = c.A,
                              .kv_heads = c.G,
                              .qkv = {qkv.data(), {M, width}},
                              .prefix_k = {prefix_k.data(), prefix_extent},
                              .prefix_v = {prefix_v.data(), prefix_extent},
                              .out = {out.data(), {M, Index{sources} * c.A * c.D}},
                              .log_sum = {log_sum.data(), {M, c.A}},
                              .d_out = {d_out.data(), {M, Index{sources} * c.A * c.D}},
                              .d_qkv = {d_qkv.poison(), {M, width}},
                              .d_prefix_k = {d_prefix_k.poison(), prefix_extent},
                              .d_prefix_v = {d_prefix_v.poison(), prefix_extent},
                              .accumulate = accumulate,
                              .rotary_theta = rotated ? theta : 0});
    check(cudaDeviceSynchronize(), "attend_backward");
    return std::pair(d_qkv.values(), d_prefix_k.values());
  };
  const auto gradients = backward(), again = backward();
  const bool same_backward =
      same_bytes(gradients.first, again.first) && same_bytes(gradients.second, again.second);
  const double backward_error = std::max({d_qkv.error(), d_prefix_k.error(), d_prefix_v.error()});
  worst_backward[sizeof(S) == 2] = std::max(worst_backward[sizeof(S) == 2], backward_error);
  report(c, "attend_backward", name<S>, backward_error, allowed_backward<S>, same_backward);
}

/// P x P attention is what `expanded` is without prefix and earlier tokens, its blocks summed: S = 1.
template <class S, int P>
void test_replicas(const cuda::Launch& on, Case c, unsigned seed) {
  std::mt19937 random(seed);
  c.P = P;
  const Index M = Index{P} * c.B * c.S, width = Index{c.A + 2 * c.G} * c.D, outs = M * c.A * c.D;
  Operand<S> qkv(M * width, random, 1), d_out(outs, random, 1);
  Result<S> out(outs), d_qkv(M * width);
  Result<double> parts(outs * P), log_sum(M * c.A);
  const Layout layout{.sequences = c.B, .tokens = c.S, .replicas = P};
  // The same d_out for every part; as sequences of one token each.
  Buffer wide_d_out(static_cast<std::size_t>(outs * P) * 8), wide_out(static_cast<std::size_t>(outs * P) * 8);
  const auto spread = [&](const double* from, Buffer& to) {
    for (int p = 0; p < P; ++p)
      check(cudaMemcpy2D(to.data() + static_cast<std::size_t>(p) * c.A * c.D * 8,
                         static_cast<std::size_t>(P) * c.A * c.D * 8, from,
                         static_cast<std::size_t>(c.A) * c.D * 8, static_cast<std::size_t>(c.A) * c.D * 8,
                         static_cast<std::size_t>(M), cudaMemcpyDeviceToDevice),
            "spread");
  };
  spread(d_out.wide_data(), wide_d_out);
  ReferenceAttention reference{P,
                               c.B * c.S,
                               1,
                               c.A,
                               c.G,
                               c.D,
                               0,
                               0,
                               P > 1,
                               qkv.wide_data(),
                               nullptr,
                               nullptr,
                               nullptr,
                               nullptr,
                               nullptr,
                               nullptr,
                               parts.wide_data(),
                               log_sum.wide_data(),
                               reinterpret_cast<const double*>(wide_d_out.data()),
                               d_qkv.wide_data(),
                               nullptr,
                               nullptr};
  launch_reference(reference_forward, reference);
  launch_reference(reference_backward, reference);
  std::vector<double> apart(static_cast<std::size_t>(outs) * P), sums(static_cast<std::size_t>(outs));
  check(cudaMemcpy(apart.data(), parts.wide_data(), apart.size() * 8, cudaMemcpyDeviceToHost), "download");
  const auto features = static_cast<std::size_t>(c.A * c.D);
  for (std::size_t i = 0; i < sums.size(); ++i)
    for (std::size_t p = 0; p < P; ++p)
      sums[i] += apart[i / features * features * P + p * features + i % features];
  check(cudaMemcpy(out.wide_data(), sums.data(), sums.size() * 8, cudaMemcpyHostToDevice), "upload");
  const auto run = [&] {
    cuda::attend_replicas<S>(on, c.D, P,
                             {.layout = layout,
                              .heads = c.A,
                              .kv_heads = c.G,
                              .qkv = {qkv.data(), {M, width}},
                              .out = {out.poison(), {M, Index{c.A} * c.D}}});
    cuda::attend_replicas_backward<S>(on, c.D, P,
                                      {.layout = layout,
                                       .heads = c.A,
                                       .kv_heads = c.G,
                                       .qkv = {qkv.data(), {M, width}},
                                       .d_out = {d_out.data(), {M, Index{c.A} * c.D}},
                                       .d_qkv = {d_qkv.poison(), {M, width}}});
    check(cudaDeviceSynchronize(), "attend_replicas");
    return d_qkv.values();
  };
  const auto first = run();
  const bool same = same_bytes(first, run());
  report(c, "attend_replicas", name<S>, out.error(), allowed_forward<S>, true);
  report(c, "attend_replicas_backward", name<S>, d_qkv.error(), allowed_backward<S>, same);
}

template <class S>
void test_append(const cuda::Launch& on, const Case& c, unsigned seed) {
  std::mt19937 random(seed);
  const Index M = Index{c.P} * c.B * c.S, width = Index{c.A + 2 * c.G} * c.D, capacity = c.S + 20;
  std::vector<Index> past(static_cast<std::size_t>(c.B));
  for (auto& p : past) p = static_cast<Index>(random() % 20);
  const Buffer past_buffer = Operand<Index>::upload(past);
  Operand<S> qkv(M * width, random, 1);
  const Index size = c.P * c.B * c.G * capacity * c.D;
  Result<S> keys(size, 0), values(size, 0);
  cuda::append<S>(on, c.D,
                  {.layout = {.sequences = c.B,
                              .tokens = c.S,
                              .replicas = c.P,
                              .past = {reinterpret_cast<const Index*>(past_buffer.data()), {c.B}}},
                   .heads = c.A,
                   .kv_heads = c.G,
                   .qkv = {qkv.data(), {M, width}},
                   .keys = {keys.poison(), {c.P * c.B, c.G, capacity, c.D}},
                   .values = {values.poison(), {c.P * c.B, c.G, capacity, c.D}}});
  std::vector<double> from(static_cast<std::size_t>(M * width)), k(static_cast<std::size_t>(size)),
      v(k.size());
  check(cudaMemcpy(from.data(), qkv.wide_data(), from.size() * 8, cudaMemcpyDeviceToHost), "download");
  for (Index row = 0; row < M; ++row)
    for (Index i = 0; i < Index{c.G} * c.D; ++i) {
      const Index stream = row / c.S, slot = past[static_cast<std::size_t>(stream % c.B)] + row % c.S;
      const auto place =
          static_cast<std::size_t>(((stream * c.G + i / c.D) * capacity + slot) * c.D + i % c.D);
      k[place] = from[static_cast<std::size_t>(row * width + c.A * c.D + i)];
      v[place] = from[static_cast<std::size_t>(row * width + (c.A + c.G) * c.D + i)];
    }
  check(cudaMemcpy(keys.wide_data(), k.data(), k.size() * 8, cudaMemcpyHostToDevice), "upload");
  check(cudaMemcpy(values.wide_data(), v.data(), v.size() * 8, cudaMemcpyHostToDevice), "upload");
  report(c, "append", name<S>, std::max(keys.error(), values.error()), 0, true);
}

Case random_case(std::mt19937& random) {
  const auto pick = [&](std::initializer_list<int> of) { return of.begin()[random() % of.size()]; };
  const int group = pick({1, 2, 3, 5, 6, 8}), G = pick({1, 2, 3});
  Case c{.P = pick({1, 2, 3, 4, 8}),
         .B = pick({1, 2, 3}),
         .S = pick({1, 2, 17, 63, 64, 65, 130, 200}),
         .A = group * G,
         .G = G,
         .D = pick({8, 40, 56, 64, 64, 80, 96, 128, 128, 160, 256}),
         .T = pick({0, 1, 48, 48, 70}),
         .expanded = false,
         .cached = random() % 3 == 0,
         .documents = false,
         .separate = false};
  while (c.P * c.B * c.S * c.A * c.D > 150000 && c.S > 1) c.S = c.S * 2 / 3;
  c.expanded = c.P > 1 && random() % 2 == 0;
  c.documents = !c.cached && random() % 3 == 0;
  return c;
}

template <class S>
void test_all(const cuda::Launch& on, const Case& c, unsigned seed) {
  test_attention<S>(on, c, seed);
  if (seed % 4 == 0) test_append<S>(on, c, seed);
  if (seed % 4 == 1) test_replicas<S, 2>(on, c, seed);
  if (seed % 4 == 2) test_replicas<S, 4>(on, c, seed);
  if (seed % 4 == 3) test_replicas<S, 8>(on, c, seed);
  if (seed == 5) test_replicas<S, 3>(on, c, seed);
  if (seed == 6) test_replicas<S, 1>(on, c, seed);
  if (seed == 7) test_replicas<S, 16>(on, c, seed);
}

}  // namespace

int main(int count, char** arguments) {
  const unsigned cases = count > 1 ? static_cast<unsigned>(std::atoi(arguments[1])) : 60;
  if (cuda::device_count() == 0) {
    std::printf("skipped: there is no GPU\n");
    return 4;
  }
  cudaDeviceProp device{};
  check(cudaGetDeviceProperties(&device, 0), "device");
  cuda::Scratch scratch;
  const cuda::Launch on{nullptr, scratch, device.multiProcessorCount, device.major * 10 + device.minor};
  cuda::Launch as_ampere = on;
  as_ampere.compute_capability = 80;  // the kernels that every GPU has
  std::mt19937 random(7);
  for (unsigned i = 0; i < cases; ++i) {
    const Case c = random_case(random);
    test_all<float>(on, c, i);
    test_all<BFloat16>(on, c, i);
    test_attention<BFloat16>(as_ampere, c, i);
  }
  std::printf("%u cases, %d failures; worst float %.2g, backward %.2g; bf16 %.2g, backward %.2g\n", cases,
              failures, worst_forward[0], worst_backward[0], worst_forward[1], worst_backward[1]);
  return failures > 0;
}
