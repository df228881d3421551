// A whole decoder layer's backward against central differences of its forward, for every kind of layer.
#include <catch2/generators/catch_generators.hpp>
#include <parscale/block/decoder_layer.hpp>

#include "../support/block_bench.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using B = Bench::B;

template <int replicas, CrossAttention kind>
void check_layer(bool crosses) {
  constexpr Architecture arch{.head_dim = 8, .replicas = replicas, .cross_attention = kind};
  using Block = DecoderLayer<arch, B>;
  const Shape shape{.layers = 1,
                    .hidden = 9,
                    .intermediate = 7,
                    .heads = 2,
                    .kv_heads = 1,
                    .vocabulary = 11,
                    .prefix_tokens = 2,
                    .rms_norm_eps = 1e-2,
                    .replica_rope = true};
  Bench bench(shape, replicas, 1, 3);
  auto at = bench.context();
  Parameters<Block::template Weights> weights(Block::weights(shape, crosses), 1);
  auto kept = Block::take_kept(bench.arena(), shape, bench.layout(), crosses);
  const Extent stream{bench.layout().rows(), shape.hidden};
  const View<double> x = bench.random(stream, 2), y = bench.take(stream), d = bench.random(stream, 3);
  const auto c = copy_of(d);
  const auto outputs = [&] {
    Block::forward(weights.weights(), crosses, x, y, kept, {}, at);
    return copy_of(y);
  };
  outputs();
  Block::backward(weights.weights(), weights.gradients(), crosses, x, d, kept, at);
  const auto gradient = copy_of(d);
  check_gradient("x", values_of(x), gradient, c, outputs);
  weights.check_gradients(c, outputs);
}

}  // namespace

TEST_CASE("The gradients of a plain decoder layer are those of its forward") {
  check_layer<1, CrossAttention::none>(false);
}

TEST_CASE("The gradients of a decoder layer with replicas are those of its forward") {
  check_layer<2, CrossAttention::none>(false);
}

TEST_CASE("The gradients of a decoder layer of the expanded kind are those of its forward, crossing or not") {
  check_layer<2, CrossAttention::expanded>(GENERATE(false, true));
}

TEST_CASE("The gradients of a decoder layer of the sublayer kind are those of its forward, crossing or not") {
  check_layer<2, CrossAttention::sublayer>(GENERATE(false, true));
}
