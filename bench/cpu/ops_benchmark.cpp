/// The CPU backend's operations at the sizes of a training step and of decoding, two shapes:
///   ops_benchmark --benchmark_filter='train/small/P1'      (ops_torch.py times the same in PyTorch)
/// GFLOP/s counts multiplications and additions of the products.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <map>
#include <parscale/backend/cpu/cpu.hpp>
#include <span>
#include <string>
#include <vector>

namespace {

using parscale::In;
using parscale::Index;
using parscale::Int;
using parscale::Layout;
using parscale::Out;
namespace op = parscale::op;

/// Sizes of a model, axis letters as everywhere.
struct Shape {
  Index V, H, I, A, G, T;
};
const std::map<std::string, Shape> shapes = {{"small", {4096, 256, 704, 4, 2, 48}},
                                             {"layer", {4096, 896, 4864, 14, 2, 48}}};
constexpr int D = 64;

/// Tensors with arbitrary small numbers, kept for one benchmark.
class Memory {
 public:
  Out<float> operator()(const parscale::Extent& extent) {
    tensors_.emplace_back(static_cast<std::size_t>(extent.count()));
    float x = 0.1F;
    for (float& value : tensors_.back()) value = x = 3.7F * x * (1 - x);
    for (float& value : tensors_.back()) value = 0.2F * (value - 0.5F);
    return {tensors_.back().data(), extent};
  }

 private:
  std::vector<std::vector<float>> tensors_;
};

/// Two threads, as the PyTorch side.
parscale::Cpu<float>& backend() {
  static parscale::Cpu<float> on({.threads = 2});
  return on;
}

/// Everything that the benchmarks of one case know.
struct Case {
  Shape s;
  int P;
  Layout layout;
  Index context;  ///< tokens in the cache; 0: training

  Index rows() const { return layout.rows(); }
  Index qkv() const { return (s.A + 2 * s.G) * D; }
};

using Run = void (*)(benchmark::State&, const Case&);

void rate(benchmark::State& state, double multiplications) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * multiplications, benchmark::Counter::kIsIterationInvariantRate);
}

void linear(benchmark::State& state, const Case& c, Index inner, Index cols, bool bias, bool add) {
  Memory memory;
  const auto x = memory({c.rows(), inner}), w = memory({cols, inner}), b = memory({cols}),
             out = memory({c.rows(), cols});
  for (auto _ : state)
    backend().linear({.x = x,
                      .weight = w,
                      .bias = bias ? In<float>(b) : In<float>{},
                      .add = add ? In<float>(out) : In<float>{},
                      .out = out});
  rate(state, static_cast<double>(c.rows()) * static_cast<double>(inner * cols));
}
void input_gradient(benchmark::State& state, const Case& c, Index inner, Index cols) {
  Memory memory;
  const auto d_x = memory({c.rows(), inner}), w = memory({cols, inner}), d_out = memory({c.rows(), cols});
  for (auto _ : state) backend().linear_input_gradient({.d_out = d_out, .weight = w, .d_x = d_x});
  rate(state, static_cast<double>(c.rows()) * static_cast<double>(inner * cols));
}
void weight_gradient(benchmark::State& state, const Case& c, Index inner, Index cols, bool bias) {
  Memory memory;
  const auto x = memory({c.rows(), inner}), d_w = memory({cols, inner}), d_out = memory({c.rows(), cols}),
             d_bias = memory({cols});
  for (auto _ : state)
    backend().linear_weight_gradient(
        {.x = x, .d_out = d_out, .d_weight = d_w, .d_bias = bias ? d_bias : Out<float>{}});
  rate(state, static_cast<double>(c.rows()) * static_cast<double>(inner * cols));
}

void rms_norm(benchmark::State& state, const Case& c) {
  Memory memory;
  const auto x = memory({c.rows(), c.s.H}), gain = memory({c.s.H}), out = memory({c.rows(), c.s.H}),
             rstd = memory({c.rows()});
  for (auto _ : state) backend().rms_norm({.x = x, .gain = gain, .eps = 1e-6, .out = out, .rstd = rstd});
}
void rms_norm_backward(benchmark::State& state, const Case& c) {
  Memory memory;
  const auto x = memory({c.rows(), c.s.H}), gain = memory({c.s.H}), d_out = memory({c.rows(), c.s.H}),
             rstd = memory({c.rows()}), d_x = memory({c.rows(), c.s.H}), d_gain = memory({c.s.H});
  for (auto _ : state)
    backend().rms_norm_backward({.x = x,
                                 .gain = gain,
                                 .rstd = rstd,
                                 .d_out = d_out,
                                 .d_residual = d_x,
                                 .d_x = d_x,
                                 .d_gain = d_gain});
}
void rotate(benchmark::State& state, const Case& c) {
  Memory memory;
  const auto qkv = memory({c.rows(), c.qkv()});
  for (auto _ : state)
    backend().rotate(Int<D>{}, {.layout = c.layout, .x = qkv, .heads = c.s.A + c.s.G, .theta = 1e6});
}

/// Operands of attention; with a context, a cache of that many tokens.
struct Attention {
  Memory memory;
  op::Attend<float> operands;
  std::vector<Index> past;

  explicit Attention(const Case& c) : past(static_cast<std::size_t>(c.layout.sequences), c.context - 1) {
    const Index prefix = c.P > 1 ? c.s.T : 0;
    operands = {.layout = c.layout,
                .heads = c.s.A,
                .kv_heads = c.s.G,
                .qkv = memory({c.rows(), c.qkv()}),
                .out = memory({c.rows(), c.s.A * D}),
                .log_sum = memory({c.rows(), c.s.A})};
    if (prefix > 0) operands.prefix_k = memory({c.P, c.s.G, prefix, D});
    if (prefix > 0) operands.prefix_v = memory({c.P, c.s.G, prefix, D});
    if (c.context == 0) return;
    operands.layout.past = {past.data(), {c.layout.sequences}};
    operands.keys = memory({c.P * c.layout.sequences, c.s.G, c.context, D});
    operands.values = memory({c.P * c.layout.sequences, c.s.G, c.context, D});
  }
};
void attend(benchmark::State& state, const Case& c) {
  const Attention a(c);
  for (auto _ : state) backend().attend(Int<D>{}, a.operands);
}
void attend_backward(benchmark::State& state, const Case& c) {
  Attention a(c);
  backend().attend(Int<D>{}, a.operands);
  const auto& f = a.operands;
  op::AttendBackward<float> operands{.layout = f.layout,
                                     .heads = f.heads,
                                     .kv_heads = f.kv_heads,
                                     .qkv = f.qkv,
                                     .prefix_k = f.prefix_k,
                                     .prefix_v = f.prefix_v,
                                     .out = f.out,
                                     .log_sum = f.log_sum,
                                     .d_out = a.memory(f.out.extent),
                                     .d_qkv = a.memory(f.qkv.extent)};
  if (f.prefix_k) operands.d_prefix_k = a.memory(f.prefix_k.extent);
  if (f.prefix_k) operands.d_prefix_v = a.memory(f.prefix_k.extent);
  for (auto _ : state) backend().attend_backward(Int<D>{}, operands);
}
void gated_mlp(benchmark::State& state, const Case& c) {
  Memory memory;
  const auto gate_up = memory({c.rows(), 2 * c.s.I}), product = memory({c.rows(), c.s.I});
  for (auto _ : state) backend().gated_mlp({.gate_up = gate_up, .product = product});
}
void gated_mlp_backward(benchmark::State& state, const Case& c) {
  Memory memory;
  const auto gate_up = memory({c.rows(), 2 * c.s.I}), product = memory({c.rows(), c.s.I});
  for (auto _ : state) {
    state.PauseTiming();  // what it leaves in place would fade to denormal numbers
    std::fill_n(gate_up.data, gate_up.count(), 0.3F);
    std::fill_n(product.data, product.count(), 0.1F);
    state.ResumeTiming();
    backend().gated_mlp_backward({.gate_up = gate_up, .product = product});
  }
}
void head_loss(benchmark::State& state, const Case& c) {
  Memory memory;
  const Index n = c.layout.positions();
  const auto x = memory({n, c.s.H}), w = memory({c.s.V, c.s.H}), d_x = memory({n, c.s.H}),
             d_w = memory({c.s.V, c.s.H});
  std::vector<parscale::Token> targets(static_cast<std::size_t>(n), 17);
  for (auto _ : state)
    benchmark::DoNotOptimize(backend().head_loss(
        {.x = x, .weight = w, .targets = {targets.data(), {n}}, .scale = 1e-3, .d_x = d_x, .d_weight = d_w}));
  rate(state, 3 * static_cast<double>(n) * static_cast<double>(c.s.H * c.s.V));
}
void embed_backward(benchmark::State& state, const Case& c) {
  Memory memory;
  std::vector<parscale::Token> ids(static_cast<std::size_t>(c.layout.positions()));
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<parscale::Token>(i * 7919 % 4096);
  const auto d_out = memory({c.rows(), c.s.H}), d_table = memory({c.s.V, c.s.H});
  for (auto _ : state)
    backend().embed_backward(
        {.ids = {ids.data(), {c.layout.sequences, c.layout.tokens}}, .d_out = d_out, .d_table = d_table});
}
void adamw(benchmark::State& state, const Case& c) {
  Memory memory;
  const Index n = c.s.H * (c.qkv() + c.s.A * D + 3 * c.s.I);  // one layer
  const auto w = memory({n}), g = memory({n}), m = memory({n}), v = memory({n});
  for (float& x : std::span(v.data, static_cast<std::size_t>(n))) x = 0.01F + x * x;
  for (auto _ : state)
    backend().adamw({.weight = w,
                     .gradient = g,
                     .first = m,
                     .second = v,
                     .learning_rate = 1e-3,
                     .beta1 = 0.9,
                     .beta2 = 0.999,
                     .epsilon = 1e-8,
                     .weight_decay = 0,
                     .step = 10});
}
void sum_of_squares(benchmark::State& state, const Case& c) {
  Memory memory;
  const auto x = memory({c.s.H * (c.qkv() + c.s.A * D + 3 * c.s.I)});
  for (auto _ : state) benchmark::DoNotOptimize(backend().sum_of_squares(x));
}
template <int P>
void merge_with(benchmark::State& state, const Case& c) {
  Memory memory;
  const Index n = c.layout.positions();
  const auto streams = memory({n, c.s.H, P}), scores = memory({n, P}), weights = memory({n, P}),
             out = memory({n, c.s.H}), d_streams = memory({n, c.s.H, P});
  for (auto _ : state) {
    backend().merge(
        Int<P>{}, {.streams = streams, .scores = scores, .smoothing = 0.01, .weights = weights, .out = out});
    backend().merge_backward(Int<P>{}, {.streams = streams,
                                        .weights = weights,
                                        .smoothing = 0.01,
                                        .d_out = out,
                                        .d_streams = d_streams,
                                        .d_scores = scores});
  }
}
void merge_both(benchmark::State& state, const Case& c) {
  if (c.P == 4) return merge_with<4>(state, c);
  if (c.P == 8) return merge_with<8>(state, c);
  merge_with<1>(state, c);
}

const std::vector<std::pair<std::string, Run>> decode_operations = {
    {"qkv", [](auto& s, const Case& c) { linear(s, c, c.s.H, c.qkv(), true, false); }},
    {"o", [](auto& s, const Case& c) { linear(s, c, c.s.A * D, c.s.H, false, true); }},
    {"gate_up", [](auto& s, const Case& c) { linear(s, c, c.s.H, 2 * c.s.I, false, false); }},
    {"down", [](auto& s, const Case& c) { linear(s, c, c.s.I, c.s.H, false, true); }},
    {"attend", attend},
    {"rms_norm", rms_norm},
    {"gated_mlp", gated_mlp},
};
const std::vector<std::pair<std::string, Run>> train_operations = {
    {"qkv_dx", [](auto& s, const Case& c) { input_gradient(s, c, c.s.H, c.qkv()); }},
    {"o_dx", [](auto& s, const Case& c) { input_gradient(s, c, c.s.A * D, c.s.H); }},
    {"gate_up_dx", [](auto& s, const Case& c) { input_gradient(s, c, c.s.H, 2 * c.s.I); }},
    {"down_dx", [](auto& s, const Case& c) { input_gradient(s, c, c.s.I, c.s.H); }},
    {"qkv_dw", [](auto& s, const Case& c) { weight_gradient(s, c, c.s.H, c.qkv(), true); }},
    {"o_dw", [](auto& s, const Case& c) { weight_gradient(s, c, c.s.A * D, c.s.H, false); }},
    {"gate_up_dw", [](auto& s, const Case& c) { weight_gradient(s, c, c.s.H, 2 * c.s.I, false); }},
    {"down_dw", [](auto& s, const Case& c) { weight_gradient(s, c, c.s.I, c.s.H, false); }},
    {"attend_backward", attend_backward},
    {"rms_norm_backward", rms_norm_backward},
    {"gated_mlp_backward", gated_mlp_backward},
    {"rotate", rotate},
    {"merge_both", merge_both},
    {"head_loss", head_loss},
    {"embed_backward", embed_backward},
    {"adamw_layer", adamw},
    {"sum_of_squares_layer", sum_of_squares},
};

void add(const std::string& mode, const std::string& shape, const Case& c,
         const std::vector<std::pair<std::string, Run>>& operations) {
  for (const auto& [name, run] : operations)
    benchmark::RegisterBenchmark((mode + "/" + shape + "/P" + std::to_string(c.P) + "/" + name).c_str(),
                                 [c, call = run](benchmark::State& state) { call(state, c); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  for (const auto& [name, shape] : shapes)
    for (int P : {1, 4, 8}) {
      const Case train{shape, P, {.sequences = 4, .tokens = 256, .replicas = P}, 0};
      const Case decode{shape, P, {.sequences = 1, .tokens = 1, .replicas = P}, 512};
      add("train", name, train, decode_operations);
      add("train", name, train, train_operations);
      add("decode", name, decode, decode_operations);
    }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
