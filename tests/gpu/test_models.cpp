// The whole model on a GPU against float64 on the CPU, at random shapes.
#include <catch2/catch_template_test_macros.hpp>

#include "on_both.hpp"

namespace parscale::test {
namespace {

template <int D, int P, CrossAttention kind = CrossAttention::none>
struct Case {
  static constexpr Architecture arch = on_gpu(D, P, kind);
};

#define PARSCALE_GPU_CASES                                                                               \
  (Case<64, 1>), (Case<64, 4>), (Case<64, 4, CrossAttention::expanded>),                                 \
      (Case<64, 4, CrossAttention::sublayer>), (Case<128, 2, CrossAttention::expanded>), (Case<128, 8>), \
      (Case<40, 3, CrossAttention::sublayer>)

}  // namespace

TEMPLATE_TEST_CASE("A model on a GPU is the model on the CPU, to rounding", "", PARSCALE_GPU_CASES) {
  PARSCALE_NEEDS_A_GPU();
  constexpr Architecture arch = TestType::arch;
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    const Shape shape = gpu_shape(seed);
    const Batch batch = gpu_batch(shape, seed);
    INFO("seed " << seed << ", hidden " << shape.hidden << ", heads " << shape.heads << "/" << shape.kv_heads
                 << ", prefix " << shape.prefix_tokens << ", tokens " << batch.tokens);
    auto oracle = exact_model<CausalLM<arch, Cpu<double>>>(shape, seed);
    const Results should = results_of(oracle, batch);
    {
      auto model = exact_model<CausalLM<arch, CudaBackend<float>>>(shape, seed);
      const Results is = results_of(model, batch);
      CHECK(relative_difference(is.logits, should.logits) <= 2e-5);
      CHECK(std::abs(is.loss - should.loss) <= 2e-5 * should.loss);
      CHECK(gradient_error(is, should) <= 1e-4);
    }
    auto model = exact_model<CausalLM<arch, Cuda>>(shape, seed);
    const Results is = results_of(model, batch);
    CHECK(relative_difference(is.logits, should.logits) <= 3e-2);
    CHECK(std::abs(is.loss - should.loss) <= 2e-2 * should.loss);
    // Coarse: batches of a few tokens cancel. The measure is PyTorch's own error, in test_goldens.cpp.
    CHECK(gradient_error(is, should) <= 0.2);
    for (Keep keep : {Keep::everything, Keep::products, Keep::layer_inputs}) {
      const Results again = results_of(model, batch, keep);
      CHECK(again.loss == is.loss);
      CHECK(again.gradients == is.gradients);
    }
  }
}

TEMPLATE_TEST_CASE("Cached decoding on a GPU chooses what the CPU chooses", "", PARSCALE_GPU_CASES) {
  PARSCALE_NEEDS_A_GPU();
  constexpr Architecture arch = TestType::arch;
  Shape shape = gpu_shape(3);
  shape.vocabulary = 40;
  auto oracle = exact_model<CausalLM<arch, Cpu<double>>>(shape, 3);
  auto model = exact_model<CausalLM<arch, CudaBackend<float>>>(shape, 3);
  const std::vector<std::vector<Token>> prompts{{1, 2, 3, 4, 5, 6, 7}, {9}, {3, 1, 4, 1, 5}};
  CHECK(model.generate(prompts, {.max_new_tokens = 24}) == oracle.generate(prompts, {.max_new_tokens = 24}));
}

TEST_CASE("A GPU that is not there is a clear error") {
  CHECK_THROWS_AS(Cuda(CudaOptions{.device = 999}), ConfigurationError);
}

}  // namespace parscale::test
