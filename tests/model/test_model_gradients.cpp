// The whole model's gradients against central differences of its loss, and recomputation.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "../support/central_differences.hpp"
#include "../support/small_model.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using D = double;

/// Three elements of every tensor, the last one among them, by differences of the loss.
template <class Model>
void check_model(const Shape& shape, const Batch& batch) {
  auto model = random_model<Model>(shape, 5);
  const auto result = differentiate(model, batch);
  CHECK(std::abs(result.loss - model.loss(batch)) <= 1e-14 * result.loss);
  const auto outputs = [&] { return std::vector<double>{model.loss(batch)}; };
  const std::vector<double> c{1.0};
  model.store().each([&](const Owned<D>& p) {
    const auto& gradient = result.gradients.at(std::string(p.name));
    const std::span<double> values(p.weight.data, gradient.size());
    for (double part : {0.1, 0.6, 1.0}) {
      const auto i = static_cast<std::size_t>(part * static_cast<double>(gradient.size() - 1));
      check_gradient(std::string(p.name), values.subspan(i, 1), std::span(gradient).subspan(i, 1), c,
                     outputs);
    }
  });
}

}  // namespace

TEMPLATE_TEST_CASE("The model's gradients are those of its loss", "", Plain<D>, Parallel<D>, Expanded<D>,
                   Sublayer<D>) {
  Shape shape = small_shape();
  shape.tied = GENERATE(true, false);
  check_model<TestType>(shape, random_batch(shape, 2, 4, 3));
}

TEMPLATE_TEST_CASE("The model's gradients are those of its loss without a prefix", "", Parallel<D>,
                   Expanded<D>) {
  Shape shape = small_shape();
  shape.prefix_tokens = 0;
  check_model<TestType>(shape, random_batch(shape, 1, 4, 3));
}

TEMPLATE_TEST_CASE("The model's gradients are those of its loss where documents are cut", "", Plain<D>,
                   Parallel<D>, Expanded<D>, Sublayer<D>) {
  const Shape shape = small_shape();
  const Batch batch = batch_of(random_tokens(10, shape.vocabulary, 3), 2, {0, 0, 2, 2, 2, 0, 1, 1, 3, 3});
  CHECK(batch.counted() == 5);
  check_model<TestType>(shape, batch);
}

TEMPLATE_TEST_CASE("The model's gradients are those of its loss when every replica reads its own tokens", "",
                   Parallel<D>, Expanded<D>, Sublayer<D>) {
  const Shape shape = small_shape();
  const Index p = TestType::architecture.replicas;
  Batch batch = random_batch(shape, 1, 4, 3);
  batch.ids = random_tokens(p * 4, shape.vocabulary, 8);
  check_model<TestType>(shape, batch);
}

TEMPLATE_TEST_CASE("Recomputing layers gives the same bits as keeping everything", "", Plain<D>,
                   Parallel<float>, Expanded<D>, Sublayer<D>) {
  const auto seed = GENERATE(1u, 2u, 3u);
  Shape shape = random_shape(seed);
  shape.layers = 3;
  Batch batch = random_batch(shape, 2, 5, seed);
  batch.starts = random_starts(2, 5, seed);
  auto model = random_model<TestType>(shape, seed);
  const auto kept = differentiate(model, batch, Keep::everything);
  for (Keep keep : {Keep::products, Keep::layer_inputs}) {
    const auto again = differentiate(model, batch, keep);
    CHECK(kept.loss == again.loss);
    CHECK(kept.gradients == again.gradients);
  }
  CHECK(magnitude(kept.gradients.at("model.layers.2.self_attn.q_proj.weight")) > 0);
}
