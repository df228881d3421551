/// Operations without products on the GPU against the CPU backend in float64: even and odd shapes, tensors
/// that lie unevenly, operands in place, absent ones; two runs give the same bytes.
#include <array>

#include <parscale/backend/cuda/adamw.cuh>
#include <parscale/backend/cuda/embedding.cuh>
#include <parscale/backend/cuda/merge.cuh>
#include <parscale/backend/cuda/pointwise.cuh>
#include <parscale/backend/cuda/rms_norm.cuh>
#include <parscale/backend/cuda/rotate.cuh>

#include "operation_case.cuh"
#include "operation_program.cuh"

using namespace parscale;
using namespace parscale::test;

namespace {

template <class S>
void test_rms_norm(const cuda::Launch& on, Index P, Index N, Index H, Index interleave, Index skew) {
  Case c(on, skew);
  auto &x = c.input<S>({P * N, H}), &gain = c.input<S>({H}, 0.3, 1), &out = c.result<S>("out", {P * N * H});
  auto& rstd = c.result<float>("rstd", {P * N});
  c.run(
      call("rms_norm", P, N, H, interleave, skew),
      [&] {
        cuda::rms_norm<S>(
            on, {.x = x, .gain = gain, .eps = 1e-6, .interleave = interleave, .out = out, .rstd = rstd});
      },
      [&] {
        reference::run(op::RmsNorm<double, double>{.x = x.wide(),
                                                   .gain = gain.wide(),
                                                   .eps = 1e-6,
                                                   .interleave = interleave,
                                                   .out = out.wide(),
                                                   .rstd = rstd.wide()});
      });
}

struct NormGradientKind {
  bool residual, in_place, d_gain, normed, accumulate;
};

template <class S>
void test_rms_norm_backward(const cuda::Launch& on, Index P, Index N, Index H, Index interleave,
                            NormGradientKind kind, Index skew) {
  const Extent rows{P * N, H};
  Case c(on, skew);
  auto &x = c.input<S>(rows), &gain = c.input<S>({H}, 0.3, 1), &d_out = c.input<S>({P * N * H});
  auto& rstd = c.input<float>({P * N}, 0.1, 1);
  auto& residual = kind.in_place ? c.updated<S>("d_x", rows) : c.input<S>(rows);
  auto& d_x = kind.in_place ? residual : c.result<S>("d_x", rows);
  auto& d_gain =
      kind.accumulate ? c.updated<float>("d_gain", {H}, 1e-4) : c.result<float>("d_gain", {H}, 1e-4);
  auto& normed = kind.normed ? c.result<S>("normed", rows) : c.updated<S>("normed", rows);
  c.run(
      call("rms_norm_backward", P, N, H, interleave, kind.residual, kind.in_place, kind.d_gain, kind.normed,
           kind.accumulate, skew),
      [&] {
        cuda::rms_norm_backward<S>(on, {.x = x,
                                        .gain = gain,
                                        .rstd = rstd,
                                        .d_out = d_out,
                                        .interleave = interleave,
                                        .d_residual = residual.in_if(kind.residual),
                                        .d_x = d_x,
                                        .d_gain = d_gain.out_if(kind.d_gain),
                                        .normed = normed.out_if(kind.normed),
                                        .accumulate = kind.accumulate});
      },
      [&] {
        reference::run(op::RmsNormBackward<double, double>{.x = x.wide(),
                                                           .gain = gain.wide(),
                                                           .rstd = rstd.wide(),
                                                           .d_out = d_out.wide(),
                                                           .interleave = interleave,
                                                           .d_residual = residual.wide_if(kind.residual),
                                                           .d_x = d_x.wide(),
                                                           .d_gain = d_gain.wide_if(kind.d_gain),
                                                           .normed = normed.wide_if(kind.normed),
                                                           .accumulate = kind.accumulate});
      });
}

template <class S>
void test_norms(const cuda::Launch& on, Index skew) {
  constexpr NormGradientKind kinds[] = {{false, false, true, false, false},
                                        {true, false, false, false, true},
                                        {true, false, true, true, true},
                                        {true, true, true, true, false},
                                        {true, true, true, false, true}};
  constexpr std::array<Index, 3> shapes[] = {{4, 7, 1536}, {1, 33, 896}, {8, 5, 64},
                                             {2, 9, 100},  {4, 3, 3584}, {3, 5, 8192},
                                             {2, 3, 4097}, {1, 700, 24}, {1, 1, 2048}};
  for (const auto& [P, N, H] : shapes)
    for (const Index interleave : {Index{1}, P}) {
      test_rms_norm<S>(on, P, N, H, interleave, skew);
      for (const auto& kind : kinds) test_rms_norm_backward<S>(on, P, N, H, interleave, kind, skew);
    }
}

enum class Positions { plain, past, documents, replicas };

template <class S>
void test_rotate(const cuda::Launch& on, cuda::RotaryTables& tables, int D, Layout layout, Index heads,
                 Index others, Positions positions, bool inverse, Index skew) {
  Case c(on, skew);
  auto& x = c.updated<S>("x", {layout.rows(), (heads + others) * D});
  auto& past = c.integers<Index>({layout.sequences}, [](Index) { return random_below(3000); });
  auto& starts = c.integers<std::int32_t>({layout.positions()},
                                          [&](Index n) { return random_below(n % layout.tokens + 1); });
  const auto operands = [&](auto view, In<Index> known_past, In<std::int32_t> known_starts) {
    if (positions == Positions::past) layout.past = known_past;
    if (positions == Positions::documents) layout.starts = known_starts;
    using T = std::remove_reference_t<decltype(*view.data)>;
    return op::Rotate<T>{.layout = layout,
                         .x = view,
                         .heads = heads,
                         .theta = 10000,
                         .by_replica = positions == Positions::replicas,
                         .inverse = inverse};
  };
  c.run(
      call("rotate", D, layout.replicas, layout.sequences, layout.tokens, static_cast<int>(positions), skew),
      [&] { cuda::rotate<S>(on, tables, D, operands(x.out(), past, starts)); },
      [&] { reference::run(D, operands(x.wide(), past.host(), starts.host())); });
}

template <class S>
void test_rotations(const cuda::Launch& on, Index skew) {
  cuda::RotaryTables tables;
  for (const int D : {64, 128, 56, 80})
    for (const auto p : {Positions::plain, Positions::past, Positions::documents, Positions::replicas}) {
      test_rotate<S>(on, tables, D, {.sequences = 2, .tokens = 37, .replicas = 4}, 5, 2, p, false, skew);
      test_rotate<S>(on, tables, D, {.sequences = 3, .tokens = 1, .replicas = 2}, 1, 0, p, true, skew);
      test_rotate<S>(on, tables, D, {.sequences = 1, .tokens = 211, .replicas = 1}, 3, 1, p, true, skew);
    }
}

template <class S>
void test_gated_mlp(const cuda::Launch& on, Index M, Index I, Index skew) {
  {
    Case c(on, skew);
    auto &gate_up = c.input<S>({M, 2 * I}), &product = c.result<S>("product", {M, I});
    c.run(
        call("gated_mlp", M, I, skew),
        [&] { cuda::gated_mlp<S>(on, {.gate_up = gate_up, .product = product}); },
        [&] { reference::run(op::GatedMlp<double>{.gate_up = gate_up.wide(), .product = product.wide()}); });
  }
  Case c(on, skew);
  auto &gate_up = c.updated<S>("gate_up", {M, 2 * I}), &product = c.updated<S>("product", {M, I});
  c.run(
      call("gated_mlp_backward", M, I, skew),
      [&] { cuda::gated_mlp_backward<S>(on, {.gate_up = gate_up, .product = product}); },
      [&] {
        reference::run(op::GatedMlpBackward<double>{.gate_up = gate_up.wide(), .product = product.wide()});
      });
}

template <class S>
void test_silu(const cuda::Launch& on, const Extent& extent, Index skew) {
  Case c(on, skew);
  auto &x = c.input<S>(extent, 3), &out = c.result<S>("out", extent), &d_x = c.updated<S>("d_x", extent);
  c.run(
      call("silu", extent[0], extent[1], skew),
      [&] {
        cuda::silu<S>(on, {.x = x, .out = out});
        cuda::silu_backward<S>(on, {.x = x, .d_out = d_x.in(), .d_x = d_x});
      },
      [&] {
        reference::run(op::Silu<double>{.x = x.wide(), .out = out.wide()});
        reference::run(op::SiluBackward<double>{.x = x.wide(), .d_out = d_x.wide(), .d_x = d_x.wide()});
      });
}

template <class S>
void test_round_and_copy(const cuda::Launch& on, const Extent& extent, Index skew) {
  Case c(on, skew);
  auto& x = c.input<float>(extent);
  auto &rounded = c.result<S>("rounded", extent, 0), &copied = c.result<S>("copied", extent, 0);
  auto& zero = c.updated<float>("zero", extent, 0);
  c.run(
      call("round", extent[0], extent[1], skew),
      [&] {
        cuda::round<S>(on, x, rounded);
        cuda::copy<S>(on, rounded, copied);
        cuda::fill_zero<float>(on, zero);
      },
      [&] {
        for (std::size_t i = 0; i < x.initial.size(); ++i)
          rounded.expected[i] = copied.expected[i] =
              static_cast<double>(Operand<S>::from_double(x.initial[i]));
        zero.expected.assign(x.initial.size(), 0);
      });
}

void test_sums_of_squares(const cuda::Launch& on, Index count, Index skew) {
  Case c(on, skew);
  auto& x = c.input<float>({count});
  auto& sums = c.result<double>("sums", {3}, 1e-12);
  c.run(
      call("sums_of_squares", count, skew),
      [&] {
        const In<float> tensors[] = {x.in(), {x.data(), {1}}, {x.data() + 1, {count - 1}}};
        double values[3];
        cuda::sums_of_squares(on, tensors, values);
        cuda::check(cudaMemcpy(sums.data(), values, sizeof(values), cudaMemcpyHostToDevice), "upload");
      },
      [&] {
        double rest = 0;
        for (std::size_t i = 1; i < x.initial.size(); ++i) rest += x.initial[i] * x.initial[i];
        const double first = x.initial[0] * x.initial[0];
        sums.expected = {first + rest, first, rest};
      });
}

template <class S>
void test_merge(const cuda::Launch& on, int P, Index N, Index H, Index skew) {
  {
    Case c(on, skew);
    auto &streams = c.input<S>({N, H, P}), &scores = c.input<S>({N, P}), &out = c.result<S>("out", {N, H});
    auto& weights = c.result<float>("weights", {N, P});
    c.run(
        call("merge", P, N, H, skew),
        [&] {
          cuda::merge<S>(
              on, P,
              {.streams = streams, .scores = scores, .smoothing = 0.1, .weights = weights, .out = out});
        },
        [&] {
          reference::run(P, op::Merge<double, double>{.streams = streams.wide(),
                                                      .scores = scores.wide(),
                                                      .smoothing = 0.1,
                                                      .weights = weights.wide(),
                                                      .out = out.wide()});
        });
  }
  Case c(on, skew);
  auto &streams = c.input<S>({N, H, P}), &d_out = c.input<S>({N, H});
  auto& weights = c.input<float>({N, P}, 0.2, 1.0 / P);
  auto& d_streams = c.result<S>("d_streams", {N, H, P});
  auto& d_scores = c.result<S>("d_scores", {N, P}, 4 * rounding<S>);
  c.run(
      call("merge_backward", P, N, H, skew),
      [&] {
        cuda::merge_backward<S>(on, P,
                                {.streams = streams,
                                 .weights = weights,
                                 .smoothing = 0.1,
                                 .d_out = d_out,
                                 .d_streams = d_streams,
                                 .d_scores = d_scores});
      },
      [&] {
        reference::run(P, op::MergeBackward<double, double>{.streams = streams.wide(),
                                                            .weights = weights.wide(),
                                                            .smoothing = 0.1,
                                                            .d_out = d_out.wide(),
                                                            .d_streams = d_streams.wide(),
                                                            .d_scores = d_scores.wide()});
      });
}

struct EmbeddingShape {
  Index vocabulary, hidden, ids, copies, replicas;
};
enum class Ids { random, equal, runs };

template <class S>
void test_embedding(const cuda::Launch& on, const EmbeddingShape& s, Ids kind, Index skew) {
  const Index rows = s.ids * s.copies;
  const bool told_apart = s.replicas > 1;
  Case c(on, skew);
  auto& ids = c.integers<Token>({s.ids}, [&](Index i) {
    return kind == Ids::random ? random_below(s.vocabulary) : kind == Ids::equal ? 3 : i / 40 % s.vocabulary;
  });
  auto &table = c.input<S>({s.vocabulary, s.hidden}), &replica = c.input<S>({s.replicas, s.hidden});
  auto &out = c.result<S>("out", {rows, s.hidden}), &d_out = c.input<S>({rows, s.hidden});
  const bool accumulate = kind != Ids::runs;
  const auto gradient = [&](const char* name, const Extent& extent) -> Operand<float>& {
    return accumulate ? c.updated<float>(name, extent) : c.result<float>(name, extent);
  };
  auto& d_table = gradient("d_table", {s.vocabulary, s.hidden});
  auto& d_replica = c.updated<float>("d_replica_embedding", {s.replicas, s.hidden});
  c.run(
      call("embed", s.vocabulary, s.hidden, s.ids, s.copies, s.replicas, static_cast<int>(kind), skew),
      [&] {
        cuda::embed<S>(
            on, {.ids = ids, .table = table, .replica_embedding = replica.in_if(told_apart), .out = out});
        cuda::embed_backward<S>(on, {.ids = ids,
                                     .d_out = d_out,
                                     .d_table = d_table,
                                     .d_replica_embedding = d_replica.out_if(told_apart),
                                     .accumulate = accumulate});
      },
      [&] {
        reference::run(op::Embed<double>{.ids = ids.host(),
                                         .table = table.wide(),
                                         .replica_embedding = replica.wide_if(told_apart),
                                         .out = out.wide()});
        reference::run(op::EmbedBackward<double, double>{.ids = ids.host(),
                                                         .d_out = d_out.wide(),
                                                         .d_table = d_table.wide(),
                                                         .d_replica_embedding = d_replica.wide_if(told_apart),
                                                         .accumulate = accumulate});
      });
}

template <class S>
void test_embeddings(const cuda::Launch& on, Index skew) {
  constexpr EmbeddingShape shapes[] = {{1000, 96, 333, 4, 4},
                                       {17, 30, 1, 2, 2},
                                       {70000, 16, 1111, 1, 1},
                                       {257, 1024, 700, 2, 2},
                                       {64, 8, 5000, 1, 1}};
  for (const auto& shape : shapes)
    for (const auto kind : {Ids::random, Ids::equal, Ids::runs}) test_embedding<S>(on, shape, kind, skew);
}

template <class S>
void test_sum_replicas(const cuda::Launch& on, const Layout& layout, Index hidden, Index skew) {
  Case c(on, skew);
  auto& x = c.updated<S>("x", {layout.rows(), hidden});
  c.run(
      call("sum_replicas", layout.replicas, layout.sequences, layout.tokens, hidden, skew),
      [&] { cuda::sum_replicas<S>(on, {.layout = layout, .x = x}); },
      [&] {
        const auto one = static_cast<std::size_t>(layout.positions() * hidden);
        for (std::size_t i = one; i < x.expected.size(); ++i) x.expected[i % one] += x.expected[i];
      });
}

template <class S>
void test_adamw(const cuda::Launch& on, Index count, Index skew) {
  Case c(on, skew);
  auto &weight = c.updated<float>("weight", {count}, 1e-6), &first = c.updated<float>("first", {count}, 1e-6);
  auto &second = c.updated<float>("second", {count}, 1e-6), &gradient = c.input<float>({count});
  auto& lent = c.result<S>("lent", {count});
  for (double& x : second.initial) x = std::abs(x);
  const auto update = [](auto a) {
    a.learning_rate = 1e-2, a.beta1 = 0.9, a.beta2 = 0.999, a.epsilon = 1e-8, a.weight_decay = 0.1;
    a.gradient_scale = 0.5, a.step = 3;
    return a;
  };
  const auto part = [&](Index from, Index to) {
    const auto of = [&](auto view) { return decltype(view){view.data + from, {to - from}}; };
    op::AdamW<S, float> a{};
    a.weight = of(weight.out()), a.gradient = of(gradient.in()), a.first = of(first.out());
    a.second = of(second.out()), a.lent = of(lent.out());
    return update(a);
  };
  c.run(
      call("adamw", count, skew),
      [&] {
        const op::AdamW<S, float> parts[] = {part(0, count / 3), part(count / 3, count)};
        cuda::adamw<S>(on, parts);
      },
      [&] {
        op::AdamW<double, double> a{};
        a.weight = weight.wide(), a.gradient = gradient.wide(), a.first = first.wide(),
        a.second = second.wide();
        reference::run(update(a));
        lent.expected = weight.expected;
      });
}

template <class S>
void test_all(const cuda::Launch& on) {
  for (const Index skew : {0, 1}) {
    test_norms<S>(on, skew);
    test_rotations<S>(on, skew);
    for (const Extent& extent :
         {Extent{31, 896}, Extent{7, 20}, Extent{1, 5}, Extent{300, 64}, Extent{2, 70000}}) {
      test_gated_mlp<S>(on, extent[0], extent[1], skew);
      test_silu<S>(on, extent, skew);
      test_round_and_copy<S>(on, extent, skew);
      test_sums_of_squares(on, extent.count(), skew);
    }
    for (const int P : {2, 3, 4, 8})
      for (const Extent& extent : {Extent{5, 1536}, Extent{17, 64}, Extent{3, 30}, Extent{1, 5000}})
        test_merge<S>(on, P, extent[0], extent[1], skew);
    test_embeddings<S>(on, skew);
    for (const int P : {1, 3, 4, 8})
      for (const Index hidden : {1, 24, 1536})
        test_sum_replicas<S>(on, {.sequences = 3, .tokens = 7, .replicas = P}, hidden, skew);
    for (const Index count : {3, 7, 4096, 100000}) test_adamw<S>(on, count, skew);
  }
}

}  // namespace

int main(int count, char** words) {
  return operation_program(count, words, [](const cuda::Device&, const cuda::Launch& on) {
    test_all<float>(on);
    test_all<BFloat16>(on);
  });
}
