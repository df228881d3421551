// The whole model on a GPU against float64 on the CPU, at random shapes.
#include <catch2/catch_template_test_macros.hpp>
#include <parscale/train/trainer.hpp>

#include "on_both.hpp"
#include "rounded_cpu.hpp"

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

/// bfloat16 is at most twice as far from float64 as rounding alone; `rounding` is what that gives.
void check_bfloat16(const Results& is, const Results& rounding, const Results& should) {
  const auto loss_error = [&](const Results& r) { return std::abs(r.loss - should.loss) / should.loss; };
  const double logits = relative_difference(rounding.logits, should.logits);
  const double gradients = gradient_error(rounding, should);
  INFO("rounding alone costs " << logits << " of the logits, " << gradients << " of the gradients and "
                               << loss_error(rounding) << " of the loss");
  CHECK(relative_difference(is.logits, should.logits) <= 2 * logits);
  CHECK(gradient_error(is, should) <= 2 * gradients);
  CHECK(loss_error(is) <= 2 * loss_error(rounding) + 2e-3);
}

/// Logits, loss and gradients of a batch in float32 and bfloat16 against float64 on the CPU; what is computed
/// again for the backward has the same bits as what was kept.
template <Architecture arch>
void check_model(const Shape& shape, const Batch& batch, std::uint64_t seed) {
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
  auto rounded = exact_model<CausalLM<arch, RoundedCpu>>(shape, seed);
  const Results rounding = results_of(rounded, batch);
  auto model = exact_model<CausalLM<arch, Cuda>>(shape, seed);
  const Results is = results_of(model, batch);
  check_bfloat16(is, rounding, should);
  for (Keep keep : {Keep::everything, Keep::products, Keep::layer_inputs}) {
    const Results again = results_of(model, batch, keep);
    CHECK(again.loss == is.loss);
    CHECK(again.gradients == is.gradients);
  }
}

/// The weights of a small model after two steps.
template <Architecture arch>
std::vector<float> trained_weights() {
  using Model = CausalLM<arch, Cuda>;
  Shape shape = gpu_shape(4);
  shape.prefix_tokens = 5;
  const Batch batch = random_batch(shape, 2, 37, 4);
  Model model = exact_model<Model>(shape, 4);
  Trainer<Model> trainer(model, {.sequences = 2, .tokens = 37, .keep = Keep::products});
  for (int step = 0; step < 2; ++step) trainer.step(std::span(&batch, 1), 1e-3);
  std::vector<float> all;
  model.store().each([&](const OwnedBy<Cuda>& p) {
    const std::size_t before = all.size();
    all.resize(before + static_cast<std::size_t>(p.weight.count()));
    model.backend().to_host(p.weight.flat(), all.data() + before);
  });
  return all;
}

}  // namespace

TEMPLATE_TEST_CASE("A model on a GPU is the model on the CPU, to rounding", "", PARSCALE_GPU_CASES) {
  PARSCALE_NEEDS_A_GPU();
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    const Shape shape = gpu_shape(seed);
    check_model<TestType::arch>(shape, gpu_batch(shape, seed), seed);
  }
}

TEST_CASE("Tensors may begin anywhere: sizes that are no multiples of 8, and a head of its own") {
  PARSCALE_NEEDS_A_GPU();
  std::uint64_t seed = 11;
  for (const auto& [hidden, intermediate] :
       {std::pair<Index, Index>{72, 104}, {68, 52}, {75, 33}, {64, 50}}) {
    Shape shape = gpu_shape(3);
    shape.hidden = hidden;
    shape.intermediate = intermediate;
    shape.vocabulary = 515;
    shape.prefix_tokens = 5;
    shape.tied = false;
    const Batch batch = random_batch(shape, 2, 70, ++seed);
    check_model<on_gpu(64, 2)>(shape, batch, seed);
    check_model<on_gpu(64, 4, CrossAttention::expanded)>(shape, batch, seed);
  }
}

TEST_CASE("tf32 rounds the factors of products, and nothing else") {
  PARSCALE_NEEDS_A_GPU();
  constexpr Architecture arch = on_gpu(64, 4);
  Shape shape = gpu_shape(3);
  shape.hidden = 200;
  const Batch batch = random_batch(shape, 2, 130, 3);
  auto oracle = exact_model<CausalLM<arch, Cpu<double>>>(shape, 3);
  const Results should = results_of(oracle, batch);
  CausalLM<arch, CudaBackend<float>> model(shape, Uninitialised{},
                                           CudaBackend<float>({.measure = false, .tf32 = true}));
  fill_exactly(model, 3);
  const Results is = results_of(model, batch);
  const double logits = relative_difference(is.logits, should.logits);
  INFO("logits differ by " << logits);
  CHECK(logits > 2e-5);  // more than float32 may
  CHECK(logits <= 3e-3);
  CHECK(gradient_error(is, should) <= 1e-2);
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

TEMPLATE_TEST_CASE("Two training runs on a GPU have the same bits", "[small]", PARSCALE_GPU_CASES) {
  PARSCALE_NEEDS_A_GPU();
  const std::vector<float> first = trained_weights<TestType::arch>();
  CHECK(std::isfinite(magnitude(first)));
  CHECK(first == trained_weights<TestType::arch>());
}

TEST_CASE("A GPU that is not there is a clear error") {
  CHECK_THROWS_AS(Cuda(CudaOptions{.device = 999}), ConfigurationError);
}

}  // namespace parscale::test
