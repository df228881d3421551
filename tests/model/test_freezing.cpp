// Training a part of the model: only that part has gradients, the right ones, and only that part changes.
#include <catch2/catch_template_test_macros.hpp>

#include "../support/small_model.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using D = double;

/// Gradients of the parameters that `list` names.
template <class Model>
Tensors<D> gradients_of_some(Model& model, const Batch& batch, const std::string& list, Keep keep) {
  const Trainable trainable(list);
  model.store().train(trainable, model.backend());
  typename Model::Memory memory(model.shape(), {batch.sequences, batch.tokens, keep, false}, model.backend());
  model.loss_and_gradients(batch, 1.0 / static_cast<double>(batch.counted()), memory);
  return gradients_of(model);
}

Shape untied() {
  Shape shape = small_shape();
  shape.tied = false;
  return shape;
}

}  // namespace

TEMPLATE_TEST_CASE("Every parameter trained alone has the gradient that it has in a full run", "", Plain<D>,
                   Parallel<D>, Expanded<D>, Sublayer<D>) {
  const Shape shape = untied();
  auto model = random_model<TestType>(shape, 1);
  const Batch batch = random_batch(shape, 2, 4, 1);
  const auto full = differentiate(model, batch).gradients;
  for (const auto& [name, gradient] : full) {
    const auto alone = gradients_of_some(model, batch, name, Keep::everything);
    REQUIRE(alone.size() == 1);
    check_close(alone, {{name, gradient}}, 1e-13);
  }
}

TEMPLATE_TEST_CASE("Groups of parameters trained together have the gradients of a full run", "", Parallel<D>,
                   Expanded<D>, Sublayer<D>) {
  const Shape shape = untied();
  auto model = random_model<TestType>(shape, 2);
  const Batch batch = random_batch(shape, 2, 4, 2);
  const auto full = differentiate(model, batch).gradients;
  for (const char* list : {"prefix,aggregate", "bias", "q_proj,v_proj", "gate_proj", "norm", "layers.1",
                           "k_proj.weight,up_proj"})
    for (Keep keep : {Keep::everything, Keep::products, Keep::layer_inputs}) {
      INFO(list);
      const auto some = gradients_of_some(model, batch, list, keep);
      Tensors<D> expected;
      for (const auto& [name, gradient] : full)
        if (Trainable(list)(name)) expected[name] = gradient;
      CHECK(some.size() < full.size());
      check_close(some, expected, 1e-13);
    }
}

TEMPLATE_TEST_CASE("A step changes the trained parameters and no others", "", Parallel<D>, Expanded<D>,
                   Sublayer<D>) {
  auto model = random_model<TestType>(small_shape(), 3);
  const Batch batch = random_batch(model.shape(), 2, 4, 3);
  const auto before = weights_of(model);
  Trainer<TestType> trainer(model, {.sequences = 2,
                                    .tokens = 4,
                                    .adamw = {.weight_decay = 0.1},
                                    .trainable = Trainable("prefix,aggregate")});
  const auto result = trainer.step(std::span(&batch, 1), 1e-2);
  CHECK(result.grad_norm > 0);
  const auto after = weights_of(model);
  for (const auto& [name, values] : before) {
    INFO(name);
    const bool trained =
        name.find("prefix") != std::string::npos || name.find("aggregate") != std::string::npos;
    CHECK((after.at(name) != values) == trained);
  }
}

TEST_CASE("The store counts what is trained") {
  auto model = random_model<Parallel<D>>(small_shape(), 4);
  CHECK(model.store().trained() == 0);
  Index all = 0, prefixes = 0;
  for (const auto& [name, values] : weights_of(model)) {
    all += static_cast<Index>(values.size());
    if (name.find("prefix") != std::string::npos) prefixes += static_cast<Index>(values.size());
  }
  CHECK(model.parameters() == all);
  CHECK(prefixes == 2 * 2 * 2 * 1 * 3 * 8);  // layers, k and v, replicas, heads, tokens, head size
  model.store().train(Trainable("prefix"), model.backend());
  CHECK(model.store().trained() == prefixes);
  model.store().train(Trainable(), model.backend());
  CHECK(model.store().trained() == all);
}
