// Every block's backward against central differences of its forward, for its inputs and every weight.
#include <catch2/generators/catch_generators.hpp>

#include <parscale/batch.hpp>
#include <parscale/block/aggregation.hpp>
#include <parscale/block/embedding.hpp>
#include <parscale/block/lm_head.hpp>
#include <parscale/block/mlp.hpp>
#include <parscale/block/rms_norm.hpp>

#include "../support/block_bench.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using B = Bench::B;

constexpr Architecture plain(int replicas) { return {.head_dim = 8, .replicas = replicas}; }

Shape small() {
  return {.layers = 1,
          .hidden = 12,
          .intermediate = 10,
          .heads = 2,
          .kv_heads = 1,
          .vocabulary = 11,
          .prefix_tokens = 5,
          .rms_norm_eps = 1e-2,
          .smoothing = 0.1};
}

/// A block's backward wrote d_x for the objective sum(c * outputs()): compares it, and the weights'
/// gradients.
template <class Weights, class F>
void check_block(Weights& weights, const View<double>& x, const View<double>& d_x, std::span<const double> c,
                 F outputs) {
  const auto gradient = copy_of(d_x);
  check_gradient("x", values_of(x), gradient, c, outputs);
  weights.check_gradients(c, outputs);
}

void check_rms_norm(Index interleave) {
  Bench bench(small(), static_cast<int>(interleave), 2, 2);
  auto at = bench.context();
  using Norm = RmsNorm<B>;
  const Extent rows{bench.layout().rows(), small().hidden};
  Parameters<Norm::Weights> weights(Norm::weights(small()), 1);
  const View<double> x = bench.random(rows, 2), out = bench.take(rows), d_x = bench.take(rows);
  const View<double> rstd = Norm::take_kept(bench.arena(), bench.layout());
  const auto outputs = [&] {
    Norm::forward(weights.weights(), x, out, rstd, at, interleave);
    return copy_of(out);
  };
  const View<double> d_out = bench.random(rows, 3);
  outputs();
  Norm::backward(weights.weights(), weights.gradients(), x, rstd, d_out, {}, d_x, at, interleave);
  check_block(weights, x, d_x, values_of(d_out), outputs);
}

}  // namespace

TEST_CASE("The gradients of RMSNorm are those of its forward") { check_rms_norm(1); }

TEST_CASE("The gradients of RMSNorm are those of its forward when it writes replicas side by side") {
  check_rms_norm(3);
}

TEST_CASE("RMSNorm divides by the root of the mean square and epsilon, and keeps that factor") {
  Bench bench(small(), 1, 1, 2);
  auto at = bench.context();
  using Norm = RmsNorm<B>;
  Parameters<Norm::Weights> weights(Norm::weights(small()), 1);
  const View<double> x = bench.random({2, 12}, 2), out = bench.take({2, 12}), rstd = bench.take({2});
  const auto gain = weights.weights().weight;
  Norm::forward(weights.weights(), x, out, rstd, at);
  for (Index i = 0; i < 2; ++i) {
    double squares = 0;
    for (Index j = 0; j < 12; ++j) squares += x.row(i)[j] * x.row(i)[j];
    const double factor = 1 / std::sqrt(squares / 12 + 1e-2);
    CHECK(std::abs(rstd.data[i] - factor) < 1e-14);
    for (Index j = 0; j < 12; ++j)
      CHECK(std::abs(out.row(i)[j] - gain.data[j] * x.row(i)[j] * factor) < 1e-14);
  }
}

TEST_CASE("RMSNorm writes the replicas of a position side by side, replica fastest") {
  Bench bench(small(), 3, 1, 2);
  auto at = bench.context();
  using Norm = RmsNorm<B>;
  Parameters<Norm::Weights> weights(Norm::weights(small()), 1);
  const View<double> x = bench.random({6, 12}, 2), rows = bench.take({6, 12}), rstd = bench.take({6});
  const View<double> interleaved = bench.take({2, 12, 3});
  Norm::forward(weights.weights(), x, rows, rstd, at);
  Norm::forward(weights.weights(), x, interleaved, rstd, at, 3);
  for (Index r = 0; r < 3; ++r)
    for (Index n = 0; n < 2; ++n)
      for (Index h = 0; h < 12; ++h) CHECK(interleaved.data[(n * 12 + h) * 3 + r] == rows.row(r * 2 + n)[h]);
}

TEST_CASE("RMSNorm adds what reaches its input past the norm, also in place") {
  const bool in_place = GENERATE(false, true);
  Bench bench(small(), 1, 2, 3);
  auto at = bench.context();
  using Norm = RmsNorm<B>;
  const Extent rows{6, small().hidden};
  Parameters<Norm::Weights> weights(Norm::weights(small()), 1);
  const View<double> x = bench.random(rows, 2), out = bench.take(rows), rstd = bench.take({6});
  const auto outputs = [&] {
    Norm::forward(weights.weights(), x, out, rstd, at);
    auto both = copy_of(out), past = copy_of(x);
    both.insert(both.end(), past.begin(), past.end());
    return both;
  };
  const View<double> d_out = bench.random(rows, 3), d_residual = bench.random(rows, 4);
  auto c = copy_of(d_out);
  for (double d : values_of(d_residual)) c.push_back(d);
  outputs();
  const View<double> d_x = in_place ? d_residual : bench.take(rows);
  Norm::backward(weights.weights(), weights.gradients(), x, rstd, d_out, d_residual, d_x, at);
  check_block(weights, x, d_x, c, outputs);
}

TEST_CASE(
    "The gradients of the embedding are those of its forward, shared and own ids, with replica vectors") {
  constexpr Architecture arch = plain(3);
  using Block = Embedding<arch, B>;
  Shape shape = small();
  shape.replica_embedding = GENERATE(false, true);
  const bool own_ids = GENERATE(false, true);
  Bench bench(shape, 3, 2, 2);
  auto at = bench.context();
  const std::vector<Token> shared{4, 9, 4, 0}, own{4, 9, 4, 0, 1, 1, 10, 2, 9, 4, 0, 3};
  const auto& tokens = own_ids ? own : shared;
  const In<Token> ids{tokens.data(), {static_cast<Index>(tokens.size())}};
  Parameters<Block::Weights> weights(Block::weights(shape), 1);
  const View<double> x = bench.take({12, shape.hidden}), d_x = bench.random({12, shape.hidden}, 2);
  const auto outputs = [&] {
    Block::forward(weights.weights(), ids, x, at);
    return copy_of(x);
  };
  Block::backward(weights.gradients(), ids, d_x, at);
  weights.check_gradients(values_of(d_x), outputs);
}

TEST_CASE("The gradients of the gated MLP are those of its forward") {
  using Block = Mlp<B>;
  Bench bench(small(), 2, 1, 3);
  auto at = bench.context();
  const Extent rows{6, small().hidden};
  Parameters<Block::Weights> weights(Block::weights(small()), 1);
  auto kept = Block::take_kept(bench.arena(), small(), bench.layout());
  Bench::fill(kept.x, random_values(rows.count(), 2, 1.0));
  const View<double> residual = bench.random(rows, 3), out = bench.take(rows), d_x = bench.take(rows);
  const auto outputs = [&] {
    Block::forward(weights.weights(), kept, residual, out, at);
    return copy_of(out);
  };
  const View<double> d_out = bench.random(rows, 4);
  outputs();
  Block::backward(weights.weights(), weights.gradients(), kept, d_out, d_x, at);
  Block::input_weight_gradients(weights.gradients(), kept, at);
  check_block(weights, kept.x, d_x, values_of(d_out), outputs);
}

TEST_CASE("The gated MLP adds to its residual") {
  using Block = Mlp<B>;
  Bench bench(small(), 1, 1, 2);
  auto at = bench.context();
  const Extent rows{2, small().hidden};
  Parameters<Block::Weights> weights(Block::weights(small()), 1);
  auto kept = Block::take_kept(bench.arena(), small(), bench.layout());
  Bench::fill(kept.x, random_values(rows.count(), 2, 1.0));
  const View<double> residual = bench.random(rows, 3), zero = bench.take(rows);
  const View<double> out = bench.take(rows), alone = bench.take(rows);
  std::fill_n(zero.data, zero.count(), 0.0);
  Block::forward(weights.weights(), kept, residual, out, at);
  Block::forward(weights.weights(), kept, zero, alone, at);
  for (Index i = 0; i < out.count(); ++i)
    CHECK(std::abs(out.data[i] - residual.data[i] - alone.data[i]) < 1e-14);
}

namespace {

template <int replicas>
void check_aggregation(double smoothing) {
  using Block = Aggregation<plain(replicas), B>;
  Shape shape = small();
  shape.smoothing = smoothing;
  Bench bench(shape, replicas, 2, 2);
  auto at = bench.context();
  Parameters<Block::template Weights> weights(Block::weights(shape), 1);
  auto kept = Block::take_kept(bench.arena(), shape, bench.layout());
  Bench::fill(kept.streams, random_values(kept.streams.count(), 2, 1.0));
  const View<double> d_merged = bench.random({4, shape.hidden}, 3),
                     d_streams = bench.take(kept.streams.extent);
  const auto outputs = [&] { return copy_of(Block::forward(weights.weights(), kept, at)); };
  outputs();
  Block::backward(weights.weights(), weights.gradients(), kept, d_merged, d_streams, at);
  check_block(weights, kept.streams, d_streams, values_of(d_merged), outputs);
}

}  // namespace

TEST_CASE("The gradients of the aggregation are those of its forward, with and without smoothing") {
  const double smoothing = GENERATE(0.0, 0.1, 1.0);
  check_aggregation<2>(smoothing);
  check_aggregation<3>(smoothing);
}

TEST_CASE("The aggregation of one replica is that replica") {
  using Block = Aggregation<plain(1), B>;
  Bench bench(small(), 1, 1, 2);
  auto at = bench.context();
  auto kept = Block::take_kept(bench.arena(), small(), bench.layout());
  CHECK(Block::forward({}, kept, at).data == kept.streams.data);
}

TEST_CASE("With smoothing 1 the aggregation is the mean of the streams") {
  using Block = Aggregation<plain(2), B>;
  Shape shape = small();
  shape.smoothing = 1;
  Bench bench(shape, 2, 1, 3);
  auto at = bench.context();
  Parameters<Block::Weights> weights(Block::weights(shape), 1);
  auto kept = Block::take_kept(bench.arena(), shape, bench.layout());
  Bench::fill(kept.streams, random_values(kept.streams.count(), 2, 1.0));
  const auto merged = copy_of(Block::forward(weights.weights(), kept, at));
  for (std::size_t i = 0; i < merged.size(); ++i)
    CHECK(std::abs(merged[i] - (kept.streams.data[2 * i] + kept.streams.data[2 * i + 1]) / 2) < 1e-15);
}

namespace {

/// The head on random streams; every third target does not count.
struct Head {
  Index n, hidden = 4, vocabulary = 7;
  Bench bench{small(), 1, 1, 1};
  View<double> x = bench.random({n, hidden}, 1), weight = bench.random({vocabulary, hidden}, 2);
  std::vector<Token> targets = std::vector<Token>(static_cast<std::size_t>(n), no_target);

  explicit Head(Index positions) : n(positions) {
    for (std::size_t i = 0; i < targets.size(); ++i)
      if (i % 3 != 1) targets[i] = static_cast<Token>(i * 5 % 7);
  }
  In<Token> wanted() const { return {targets.data(), {n}}; }
  double loss() { return LmHead<B>::loss(weight, x, wanted(), 0.25, bench.on()); }
};

}  // namespace

TEST_CASE("The gradients of the head's loss are those of the loss, and targets that do not count have none") {
  Head head(6);
  const View<double> d_x = head.bench.take(head.x.extent), d_weight = head.bench.take(head.weight.extent);
  std::fill_n(d_weight.data, d_weight.count(), 1.0);
  auto at = head.bench.context();
  const double loss =
      LmHead<B>::loss_and_gradients(head.weight, d_weight, head.x, head.wanted(), 0.25, d_x, at);
  CHECK(loss == head.loss());
  const std::vector<double> c{1.0};
  const auto outputs = [&] { return std::vector<double>{head.loss()}; };
  check_gradient("x", values_of(head.x), copy_of(d_x), c, outputs);
  auto gradient = copy_of(d_weight);
  for (double& g : gradient) g -= 1.0;
  check_gradient("weight", values_of(head.weight), gradient, c, outputs);
  for (Index j = 0; j < head.hidden; ++j) CHECK(d_x.row(1)[j] == 0.0);
}

TEST_CASE("The head's loss is the cross-entropy of its logits, also over more rows than one chunk") {
  Head head(1100);
  const View<double> logits = head.bench.take({head.n, head.vocabulary});
  LmHead<B>::logits(head.weight, head.x, logits, head.bench.on());
  double expected = 0;
  for (Index i = 0; i < head.n; ++i) {
    const Token target = head.targets[static_cast<std::size_t>(i)];
    double total = 0;
    for (Index j = 0; j < head.vocabulary; ++j) total += std::exp(logits.row(i)[j]);
    if (target >= 0) expected += std::log(total) - logits.row(i)[target];
  }
  CHECK(std::abs(head.loss() - 0.25 * expected) < 1e-12 * expected);
}

TEST_CASE("The head's loss stays right where logits are in the thousands") {
  Head head(6);
  for (double& x : values_of(head.x)) x *= 2000;
  double expected = 0;
  for (Index i = 0; i < head.n; ++i) {
    std::vector<double> logits;
    for (Index j = 0; j < head.vocabulary; ++j) {
      logits.push_back(0);
      for (Index h = 0; h < head.hidden; ++h) logits.back() += head.x.row(i)[h] * head.weight.row(j)[h];
    }
    const double top = *std::max_element(logits.begin(), logits.end());
    double total = 0;
    for (double logit : logits) total += std::exp(logit - top);
    const Token target = head.targets[static_cast<std::size_t>(i)];
    if (target >= 0) expected += std::log(total) + top - logits[static_cast<std::size_t>(target)];
  }
  CHECK(expected > 1000);
  CHECK(std::abs(head.loss() - 0.25 * expected) < 1e-12 * expected);
}

TEST_CASE("The head's gradients over several chunks are the sums of its parts") {
  Head head(1100);
  const View<double> d_x = head.bench.take(head.x.extent), d_weight = head.bench.take(head.weight.extent);
  const View<double> part_x = head.bench.take(head.x.extent),
                     part_weight = head.bench.take(head.weight.extent);
  for (const auto& view : {d_weight, part_weight}) std::fill_n(view.data, view.count(), 0.0);
  auto at = head.bench.context();
  LmHead<B>::loss_and_gradients(head.weight, d_weight, head.x, head.wanted(), 0.25, d_x, at);
  for (Index i = 0; i < head.n; ++i)
    LmHead<B>::loss_and_gradients(head.weight, part_weight, In<double>{head.x.row(i), {1, head.hidden}},
                                  In<Token>{head.targets.data() + i, {1}}, 0.25,
                                  View<double>{part_x.row(i), {1, head.hidden}}, at);
  for (Index i = 0; i < d_x.count(); ++i) CHECK(std::abs(d_x.data[i] - part_x.data[i]) < 1e-14);
  for (Index i = 0; i < d_weight.count(); ++i)
    CHECK(std::abs(d_weight.data[i] - part_weight.data[i]) < 1e-11);
}
