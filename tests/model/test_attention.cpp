// The attention blocks' forward against their definitions, written out one query at a time.
#include <algorithm>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <parscale/block/cross_replica_attention.hpp>
#include <parscale/block/self_attention.hpp>

#include "../support/block_bench.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using B = Bench::B;
using Row = std::vector<double>;
constexpr Index D = 8;

constexpr Architecture of(int replicas, CrossAttention kind = CrossAttention::none) {
  return {.head_dim = 8, .replicas = replicas, .cross_attention = kind};
}

Shape small(Index prefix_tokens) {
  return {.layers = 1,
          .hidden = 10,
          .intermediate = 8,
          .heads = 6,
          .kv_heads = 2,
          .vocabulary = 11,
          .prefix_tokens = prefix_tokens,
          .rope_theta = 30.0};
}

double dot(const double* a, const double* b, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// weight x + bias
Row projected(In<double> weight, In<double> bias, const double* x) {
  Row y;
  for (Index i = 0; i < weight.rows(); ++i)
    y.push_back(dot(weight.row(i), x, weight.cols()) + (bias ? bias.data[i] : 0.0));
  return y;
}

/// Turns every head: features d and d + D/2 by position * theta^(-2d/D).
void rotate(Row& heads, Index position, double theta) {
  for (std::size_t first = 0; first < heads.size(); first += D)
    for (std::size_t d = 0; d < D / 2; ++d) {
      const double angle = static_cast<double>(position) * std::pow(theta, -2.0 * static_cast<double>(d) / D);
      double &low = heads[first + d], &high = heads[first + d + D / 2];
      const double u = low, v = high;
      low = u * std::cos(angle) - v * std::sin(angle);
      high = v * std::cos(angle) + u * std::sin(angle);
    }
}

/// Query, key and value heads of one row.
struct Heads {
  Row q, k, v;
};
template <class Weights>
Heads heads_of(const Weights& w, const double* x) {
  return {projected(w.q_weight, w.q_bias, x), projected(w.k_weight, w.k_bias, x),
          projected(w.v_weight, w.v_bias, x)};
}

/// What a query sees: a key, its value, and the block of the result that the value goes to.
struct Seen {
  const double *key, *value;
  std::size_t block;
};
/// softmax(q k / sqrt(D)) v into the blocks [count,D].
Row attended(const double* q, const std::vector<Seen>& seen, std::size_t blocks) {
  Row weights, out(blocks * D, 0.0);
  double total = 0;
  for (const Seen& s : seen) weights.push_back(dot(q, s.key, D) / std::sqrt(8.0));
  const double top = *std::max_element(weights.begin(), weights.end());
  for (double& w : weights) total += w = std::exp(w - top);
  for (std::size_t i = 0; i < seen.size(); ++i)
    for (std::size_t d = 0; d < D; ++d) out[seen[i].block * D + d] += weights[i] / total * seen[i].value[d];
  return out;
}

void check_equal(const View<double>& out, const std::vector<Row>& expected) {
  for (Index i = 0; i < out.rows(); ++i)
    for (Index j = 0; j < out.cols(); ++j) {
      const double difference =
          std::abs(out.row(i)[j] - expected[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)]);
      if (difference < 1e-12 * std::max(1.0, std::abs(out.row(i)[j]))) continue;
      FAIL_CHECK("row " << i << ", feature " << j << " differs by " << difference);
      return;
    }
  SUCCEED();
}

/// Row i of the result: the projected heads and the residual.
Row finished(const Row& heads, In<double> weight, const View<double>& residual, Index i) {
  Row y = projected(weight, {}, heads.data());
  for (Index j = 0; j < residual.cols(); ++j) y[static_cast<std::size_t>(j)] += residual.row(i)[j];
  return y;
}

/// Self-attention by definition: prefix, own document so far, and when expanded the other replicas now.
template <class Weights>
std::vector<Row> self_attention(const Weights& w, bool expanded, const Bench& bench, const View<double>& x,
                                const View<double>& residual) {
  const Shape& shape = bench.shape();
  const Layout& at = bench.layout();
  const auto start = [&](Index n) { return at.starts ? Index{at.starts.data[n]} : Index{0}; };
  std::vector<Heads> all;
  for (Index i = 0; i < at.rows(); ++i) {
    all.push_back(heads_of(w, x.row(i)));
    const Index n = i % at.positions(), position = n % at.tokens - start(n);
    rotate(all.back().q, position, shape.rope_theta);
    rotate(all.back().k, position, shape.rope_theta);
  }
  std::vector<Row> out;
  for (Index i = 0; i < at.rows(); ++i) {
    const Index r = i / at.positions(), n = i % at.positions(), token = n % at.tokens;
    const Index blocks = expanded ? at.replicas : 1, own = expanded ? r : 0;
    Row heads(static_cast<std::size_t>(blocks * shape.heads * D));
    for (Index a = 0; a < shape.heads; ++a) {
      const Index g = a / (shape.heads / shape.kv_heads);
      std::vector<Seen> seen;
      const auto see = [&](Index row, Index block) {
        const Heads& h = all[static_cast<std::size_t>(row)];
        seen.push_back({h.k.data() + g * D, h.v.data() + g * D, static_cast<std::size_t>(block)});
      };
      for (Index t = 0; t < (w.prefix.prefix_k ? shape.prefix_tokens : 0); ++t) {
        const Index place = ((r * shape.kv_heads + g) * shape.prefix_tokens + t) * D;
        seen.push_back(
            {w.prefix.prefix_k.data + place, w.prefix.prefix_v.data + place, static_cast<std::size_t>(own)});
      }
      for (Index j = start(n); j <= token; ++j) see(i - token + j, own);
      for (Index p = 0; p < blocks; ++p)
        if (p != own) see(p * at.positions() + n, p);
      const Row result =
          attended(all[static_cast<std::size_t>(i)].q.data() + a * D, seen, static_cast<std::size_t>(blocks));
      for (Index block = 0; block < blocks; ++block)
        std::copy_n(result.begin() + block * D, D, heads.begin() + (block * shape.heads + a) * D);
    }
    out.push_back(finished(heads, w.output(), residual, i));
  }
  return out;
}

template <Architecture arch>
void check_self_attention(Index prefix, bool expanded, Index sequences, Index tokens,
                          const std::vector<std::int32_t>& starts = {}, double size = 1.0) {
  using Block = SelfAttention<arch, B>;
  const Shape shape = small(prefix);
  Bench bench(shape, arch.replicas, sequences, tokens);
  if (!starts.empty()) bench.cut(starts);
  auto at = bench.context();
  const Parameters<Block::template Weights> weights(Block::weights(shape, expanded), 1);
  auto kept = Block::take_kept(bench.arena(), shape, bench.layout(), expanded);
  Bench::fill(kept.x, random_values(kept.x.count(), 2, size));
  const View<double> residual = bench.random(kept.x.extent, 3), out = bench.take(kept.x.extent);
  Block::forward(weights.weights(), expanded, kept, {}, residual, out, at);
  check_equal(out, self_attention(weights.weights(), expanded, bench, kept.x, residual));
}

}  // namespace

TEST_CASE(
    "Self-attention is causal softmax attention over the prefix and the tokens so far, in groups of heads") {
  const Index prefix = GENERATE(0, 5);
  check_self_attention<of(1)>(prefix, false, 2, 5);
  check_self_attention<of(3)>(prefix, false, 2, 5);
}

TEST_CASE("Expanded self-attention also sees the other replicas' present token, kept apart by source") {
  const Index prefix = GENERATE(0, 5);
  check_self_attention<of(3, CrossAttention::expanded)>(prefix, true, 2, 5);
  check_self_attention<of(3, CrossAttention::expanded)>(prefix, false, 2, 5);
}

TEST_CASE("Self-attention begins at a token's own document, and so do positions") {
  const std::vector<std::int32_t> starts{0, 0, 2, 2, 2, 0, 1, 1, 3, 4};
  check_self_attention<of(2)>(5, false, 2, 5, starts);
  check_self_attention<of(2, CrossAttention::expanded)>(0, true, 2, 5, starts);
}

TEST_CASE("Self-attention is the same over sequences of many tiles") {
  std::vector<std::int32_t> starts(330);
  for (std::int32_t i = 0; i < 330; ++i) starts[static_cast<std::size_t>(i)] = i < 3 ? 0 : i < 290 ? 3 : 290;
  check_self_attention<of(2)>(7, false, 1, 330);
  check_self_attention<of(1)>(7, false, 1, 330, starts);
}

TEST_CASE(
    "Self-attention is the same behind a prefix of several key blocks, with and without cut documents") {
  std::vector<std::int32_t> starts(330);
  for (std::int32_t i = 0; i < 330; ++i) starts[static_cast<std::size_t>(i)] = i < 290 ? 0 : 290;
  check_self_attention<of(2, CrossAttention::expanded)>(300, true, 2, 5);
  check_self_attention<of(2)>(300, false, 1, 330, starts);
}

TEST_CASE("Self-attention stays right where scores are in the thousands") {
  check_self_attention<of(2)>(5, false, 2, 5, {}, 100.0);
  check_self_attention<of(2, CrossAttention::expanded)>(5, true, 2, 5, {}, 100.0);
}

namespace {

template <int replicas>
void check_sublayer(bool replica_rope) {
  using Block = CrossReplicaAttention<of(replicas, CrossAttention::sublayer), B>;
  Shape shape = small(5);
  shape.replica_rope = replica_rope;
  Bench bench(shape, replicas, 2, 2);
  auto at = bench.context();
  const Parameters<Block::template Weights> weights(Block::weights(shape), 1);
  const auto w = weights.weights();
  auto kept = Block::take_kept(bench.arena(), shape, bench.layout());
  Bench::fill(kept.x, random_values(kept.x.count(), 2, 1.0));
  const View<double> residual = bench.random(kept.x.extent, 3), out = bench.take(kept.x.extent);
  Block::forward(w, kept, residual, out, at);

  const Index positions = bench.layout().positions();
  std::vector<Heads> all;
  for (Index i = 0; i < replicas * positions; ++i) {
    all.push_back(heads_of(w, kept.x.row(i)));
    if (!replica_rope) continue;
    rotate(all.back().q, i / positions, 10000.0);
    rotate(all.back().k, i / positions, 10000.0);
  }
  std::vector<Row> expected;
  for (Index i = 0; i < replicas * positions; ++i) {
    Row heads;
    for (Index a = 0; a < shape.heads; ++a) {
      const Index g = a / (shape.heads / shape.kv_heads);
      std::vector<Seen> seen;
      for (Index p = 0; p < replicas; ++p) {
        const Heads& h = all[static_cast<std::size_t>(p * positions + i % positions)];
        seen.push_back({h.k.data() + g * D, h.v.data() + g * D, 0});
      }
      const Row result = attended(all[static_cast<std::size_t>(i)].q.data() + a * D, seen, 1);
      heads.insert(heads.end(), result.begin(), result.end());
    }
    expected.push_back(finished(heads, w.o_proj, residual, i));
  }
  check_equal(out, expected);
}

}  // namespace

TEST_CASE(
    "The cross-replica sublayer is attention among the replicas of each position, with and without rope") {
  const bool replica_rope = GENERATE(false, true);
  check_sublayer<2>(replica_rope);
  check_sublayer<3>(replica_rope);
}
