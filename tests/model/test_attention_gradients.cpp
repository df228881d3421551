// The attention blocks' backward against central differences of their forward, for inputs and every weight.
#include <catch2/generators/catch_generators.hpp>
#include <parscale/block/cross_replica_attention.hpp>
#include <parscale/block/self_attention.hpp>

#include "../support/block_bench.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using B = Bench::B;

constexpr Architecture of(int replicas, CrossAttention kind = CrossAttention::none) {
  return {.head_dim = 8, .replicas = replicas, .cross_attention = kind};
}

Shape small(Index prefix_tokens) {
  return {.layers = 1,
          .hidden = 10,
          .intermediate = 8,
          .heads = 4,
          .kv_heads = 2,
          .vocabulary = 11,
          .prefix_tokens = prefix_tokens,
          .rope_theta = 30.0};
}

/// Self-attention of one architecture between random operands.
template <Architecture arch>
class Attending {
  using Block = SelfAttention<arch, B>;

 public:
  Attending(const Shape& shape, Index sequences, Index tokens, bool expanded)
      : expanded_(expanded),
        bench_(shape, arch.replicas, sequences, tokens),
        weights_(Block::weights(shape, expanded), 1),
        kept_(Block::take_kept(bench_.arena(), shape, bench_.layout(), expanded)),
        residual_(bench_.random(kept_.x.extent, 3)),
        out_(bench_.take(kept_.x.extent)) {
    Bench::fill(kept_.x, random_values(kept_.x.count(), 2, 1.0));
  }
  Bench& bench() { return bench_; }

  void check_gradients(std::size_t stride = 1) {
    auto at = bench_.context();
    const auto outputs = [&] {
      Block::forward(weights_.weights(), expanded_, kept_, {}, residual_, out_, at);
      return copy_of(out_);
    };
    const View<double> d_out = bench_.random(out_.extent, 4), d_x = bench_.take(out_.extent);
    outputs();
    const auto scratch = Block::take_scratch(at.scratch, at.shape, at.layout, expanded_);
    Block::backward(weights_.weights(), weights_.gradients(), expanded_, kept_, scratch, d_out, d_x, at);
    Block::input_weight_gradients(weights_.gradients(), kept_, scratch, at);
    const auto gradient = copy_of(d_x);
    check_gradient("x", values_of(kept_.x), gradient, values_of(d_out), outputs, stride);
    weights_.check_gradients(values_of(d_out), outputs, stride);
  }

 private:
  bool expanded_;
  Bench bench_;
  Parameters<Block::template Weights> weights_;
  typename Block::Kept kept_;
  View<double> residual_, out_;
};

}  // namespace

TEST_CASE("The gradients of plain self-attention are those of its forward") {
  Attending<of(1)>(small(5), 2, 4, false).check_gradients();
}

TEST_CASE(
    "The gradients of self-attention with replicas are those of its forward, with and without a prefix") {
  Attending<of(2)>(small(GENERATE(0, 5)), 2, 3, false).check_gradients();
}

TEST_CASE("The gradients of expanded self-attention are those of its forward, with and without a prefix") {
  Attending<of(3, CrossAttention::expanded)>(small(GENERATE(0, 5)), 1, 3, true).check_gradients();
}

TEST_CASE("The gradients of a layer that does not cross are those of its forward where others are expanded") {
  Attending<of(3, CrossAttention::expanded)>(small(5), 1, 3, false).check_gradients();
}

TEST_CASE("The gradients of self-attention are those of its forward where documents are cut") {
  Attending<of(2)> plain(small(2), 2, 5, false);
  plain.bench().cut({0, 0, 2, 2, 4, 0, 1, 1, 1, 1});
  plain.check_gradients();
  Attending<of(2, CrossAttention::expanded)> expanded(small(2), 2, 5, true);
  expanded.bench().cut({0, 0, 2, 2, 4, 0, 1, 1, 1, 1});
  expanded.check_gradients();
}

TEST_CASE("The gradients of self-attention are those of its forward over sequences of many tiles") {
  Shape shape = small(7);
  shape.hidden = 4;
  shape.heads = 2;
  shape.kv_heads = 1;
  Attending<of(2, CrossAttention::expanded)>(shape, 1, 270, GENERATE(false, true)).check_gradients(1499);
}

TEST_CASE("The gradients of self-attention are those of its forward behind a prefix of several key blocks") {
  Shape shape = small(300);
  shape.heads = 2;
  shape.kv_heads = 1;
  Attending<of(2, CrossAttention::expanded)>(shape, 1, 4, GENERATE(false, true)).check_gradients(211);
}

TEST_CASE("The gradients of self-attention are those of its forward over many tiles of cut documents") {
  Shape shape = small(7);
  shape.hidden = 4;
  shape.heads = 2;
  shape.kv_heads = 1;
  std::vector<std::int32_t> starts(330);
  for (std::int32_t i = 0; i < 330; ++i) starts[static_cast<std::size_t>(i)] = i < 3 ? 0 : i < 290 ? 3 : 290;
  Attending<of(1)> attending(shape, 1, 330, false);
  attending.bench().cut(starts);
  attending.check_gradients(397);
}

namespace {

template <int replicas>
void check_sublayer(bool replica_rope) {
  using Block = CrossReplicaAttention<of(replicas, CrossAttention::sublayer), B>;
  Shape shape = small(5);
  shape.replica_rope = replica_rope;
  Bench bench(shape, replicas, 2, 2);
  auto at = bench.context();
  Parameters<Block::template Weights> weights(Block::weights(shape), 1);
  auto kept = Block::take_kept(bench.arena(), shape, bench.layout());
  Bench::fill(kept.x, random_values(kept.x.count(), 2, 1.0));
  const View<double> residual = bench.random(kept.x.extent, 3), out = bench.take(kept.x.extent);
  const View<double> d_out = bench.random(out.extent, 4), d_x = bench.take(out.extent);
  const auto outputs = [&] {
    Block::forward(weights.weights(), kept, residual, out, at);
    return copy_of(out);
  };
  outputs();
  const auto scratch = Block::take_scratch(at.scratch, at.shape, at.layout);
  Block::backward(weights.weights(), weights.gradients(), kept, scratch, d_out, d_x, at);
  Block::input_weight_gradients(weights.gradients(), kept, scratch, at);
  const auto gradient = copy_of(d_x);
  check_gradient("x", values_of(kept.x), gradient, values_of(d_out), outputs);
  weights.check_gradients(values_of(d_out), outputs);
}

}  // namespace

TEST_CASE(
    "The gradients of the cross-replica sublayer are those of its forward, with and without replica rope") {
  const bool replica_rope = GENERATE(false, true);
  check_sublayer<2>(replica_rope);
  check_sublayer<3>(replica_rope);
}
