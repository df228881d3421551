/// Attention forward on Hopper: compares it with the definition over many shapes (greatest error of out over
/// its greatest, and of log_sum), then times it. attention_torch.py times PyTorch's kernels.
#include <parscale/backend/cuda/attention_hopper.cuh>

#include "attention_case.cuh"

namespace {

using namespace parscale;
using namespace parscale::bench;
using Call = op::Attend<BFloat16, float>;

struct Operands : AttentionOperands {
  Memory<BFloat16> out;
  Memory<float> log_sum;

  Operands(const AttentionCase& of, unsigned seed)
      : AttentionOperands(of, 3 * seed), out(c.rows() * c.A * c.D + guard), log_sum(c.rows() * c.A + guard) {
    out.poison();
    log_sum.poison();
  }
  Call call() {
    return read_by(Call{.out = {out.data(), {c.rows(), Index{c.A} * c.D}},
                        .log_sum = {log_sum.data(), {c.rows(), c.A}}});
  }
};

void attend(const cuda::Launch& on, int D, const Call& a) {
  D == 64 ? cuda::attend_hopper<64>(on, 1, a) : cuda::attend_hopper<128>(on, 1, a);
}

/// Of rows of `row_size` elements, of which the definition has every `every`th.
template <class T>
double error(const std::vector<T>& got, const std::vector<double>& want, Index row_size, Index every) {
  LargestError e;
  for (Index i = 0; i < static_cast<Index>(want.size()); ++i)
    e.add(static_cast<double>(got[static_cast<std::size_t>(i / row_size * every * row_size + i % row_size)]),
          want[static_cast<std::size_t>(i)]);
  return e.relative();
}

bool check_case(const cuda::Launch& on, const AttentionCase& c, unsigned seed) {
  Operands operands(c, seed);
  const Call a = operands.call();
  attend(on, c.D, a);
  const auto out = operands.out.host();
  const auto log_sum = operands.log_sum.host();
  attend(on, c.D, a);
  const bool same = same_bits(out, operands.out.host());

  const Index every = c.rows() > 4000 ? 61 : 1, sampled = (c.rows() + every - 1) / every;
  Memory<double> want(sampled * c.A * c.D), want_log(sampled * c.A);
  forward_reference<<<dim3(static_cast<unsigned>(sampled), static_cast<unsigned>(c.A)), 128,
                      c.shared_bytes()>>>(AttentionDefinition<Call>{a, c.D}, every, want.data(),
                                          want_log.data());
  cuda::check(cudaGetLastError(), "reference");
  const double e = error(out, want.host(), Index{c.A} * c.D, every);
  const double e_log = error(log_sum, want_log.host(), c.A, every);
  const bool inside = guard_untouched(out) && guard_untouched(log_sum);
  const bool good = e < 6e-3 && e_log < 1e-5 && same && inside;
  std::printf("%s %s: out %.1e log_sum %.1e%s%s\n", good ? "ok " : "BAD", c.name().c_str(), e, e_log,
              same ? "" : " differs from run to run", inside ? "" : " writes outside");
  return good;
}

void time_case(const cuda::Launch& on, const AttentionCase& c) {
  Operands first(c, 7), second(c, 8);
  const Call calls[] = {first.call(), second.call()};
  const double ms = median_ms(5, 30, [&](int i) { attend(on, c.D, calls[i % 2]); });
  std::printf("%s: %.4f ms, %.0f TFLOP/s\n", c.name().c_str(), ms, c.operations(2) / ms * 1e-9);
}

}  // namespace

int main(int count, char** arguments) {
  return check_and_time(
      count, arguments,
      [](const cuda::Launch& on) {
        return check_shapes({4, 2, 2048, 12, 2, 48},
                            [&](const AttentionCase& c, unsigned seed) { return check_case(on, c, seed); });
      },
      [](const cuda::Launch& on) {
        for (const AttentionCase& c :
             {AttentionCase{4, 4, 2048, 12, 2, 48}, AttentionCase{1, 4, 2048, 12, 2, 0},
              AttentionCase{8, 2, 2048, 12, 2, 48}, AttentionCase{4, 4, 2048, 12, 2, 48, 128, true},
              AttentionCase{4, 1, 8192, 12, 2, 48}, AttentionCase{4, 4, 2048, 14, 2, 48, 64},
              AttentionCase{4, 1, 8192, 14, 2, 48, 64}})
          time_case(on, c);
      });
}
