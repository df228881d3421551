// Same numbers twice: results do not depend on the number of threads.
#include <catch2/catch_template_test_macros.hpp>

#include "../support/small_model.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

/// Large enough for several tiles in every product, several tiles of queries, several chunks everywhere.
Shape tiled() {
  Shape shape = small_shape();
  shape.hidden = 40;
  shape.intermediate = 150;
  shape.vocabulary = 600;
  return shape;
}

template <class Model>
struct Run {
  std::vector<ScalarOf<Model>> logits;
  std::vector<double> losses;
  Tensors<ScalarOf<Model>> gradients, weights;
  bool operator==(const Run&) const = default;
};

/// Logits, then three training steps.
template <class Model>
Run<Model> run(int threads) {
  auto model = random_model<Model>(tiled(), 3, threads);
  Run<Model> result;
  result.logits = model.logits(random_batch(model.shape(), 2, 70, 9));
  Trainer<Model> trainer(model, {.sequences = 2, .tokens = 150, .adamw = {.weight_decay = 0.1}});
  for (std::uint64_t i = 0; i < 3; ++i) {
    const Batch batch = random_batch(model.shape(), 2, 150, i);
    const StepResult step = trainer.step(std::span(&batch, 1), 1e-2);
    result.losses.push_back(step.loss);
    result.losses.push_back(step.grad_norm);
  }
  result.gradients = gradients_of(model);
  result.weights = weights_of(model);
  return result;
}

}  // namespace

TEMPLATE_TEST_CASE("Logits, losses, gradients and weights have the same bits for any number of threads", "",
                   Plain<float>, Parallel<double>, Expanded<float>, Sublayer<float>) {
  const auto one = run<TestType>(1);
  CHECK(one.losses.front() > 0);
  for (int threads : {2, 3, 5}) {
    INFO(threads << " threads");
    const auto many = run<TestType>(threads);
    CHECK(many.logits == one.logits);
    CHECK(many.losses == one.losses);
    CHECK(many.gradients == one.gradients);
    CHECK(many.weights == one.weights);
  }
}

TEST_CASE("The same call twice gives the same bits") {
  auto model = random_model<Expanded<float>>(tiled(), 3, 3);
  const Batch batch = random_batch(model.shape(), 2, 150, 1);
  CHECK(model.logits(batch) == model.logits(batch));
  const auto a = differentiate(model, batch), b = differentiate(model, batch);
  CHECK(a.loss == b.loss);
  CHECK(a.gradients == b.gradients);
}
