// What the first micro-batch of a step and the first layer of a model may do by less than the others.
#include <catch2/catch_template_test_macros.hpp>

#include "../support/small_model.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using D = double;

Shape shape_of(bool tied, bool replica_embedding) {
  Shape shape = small_shape();
  shape.tied = tied;
  shape.replica_embedding = replica_embedding;
  return shape;
}

/// Fills all gradients with NaN, so that whoever reads one is found.
template <class Model>
void spoil_gradients(Model& model) {
  model.store().each([&](const Owned<D>& p) {
    const std::vector<D> nan(static_cast<std::size_t>(p.gradient.count()), std::nan(""));
    model.backend().from_host(nan.data(), p.gradient.flat());
  });
}

/// Gradients of `passes` times the same micro-batch.
template <class Model>
Tensors<D> gradients_after(Model& model, const Batch& batch, int passes, typename Model::Memory& memory) {
  for (int pass = 0; pass < passes; ++pass) model.loss_and_gradients(batch, 0.125, memory);
  return gradients_of(model);
}

}  // namespace

TEMPLATE_TEST_CASE("A step's first micro-batch writes over what gradients hold, the others add", "", Plain<D>,
                   Parallel<D>, Expanded<D>, Sublayer<D>) {
  for (const bool tied : {false, true})
    for (const Keep keep : {Keep::everything, Keep::products, Keep::layer_inputs}) {
      auto model = random_model<TestType>(shape_of(tied, true), 1);
      model.store().train([](std::string_view) { return true; }, model.backend());
      typename TestType::Memory memory(model.shape(), {2, 4, keep, false}, model.backend());
      const Batch batch = random_batch(model.shape(), 2, 4, 1);
      for (const int passes : {1, 2}) {
        model.store().zero_gradients(model.backend());
        const auto added = gradients_after(model, batch, passes, memory);
        spoil_gradients(model);
        model.store().begin_step(passes, batch.counted(), model.backend());
        CHECK(gradients_after(model, batch, passes, memory) == added);
      }
    }
}

TEMPLATE_TEST_CASE("Replicas that start alike have the gradients that they have when each reads for itself",
                   "", Parallel<D>, Expanded<D>, Sublayer<D>) {
  for (const bool crosses_first : {false, true})
    for (const Keep keep : {Keep::everything, Keep::products, Keep::layer_inputs}) {
      Shape shape = shape_of(true, false);
      if (crosses_first) shape.cross_layers = {0};
      auto model = random_model<TestType>(shape, 3);
      const Batch shared = random_batch(shape, 2, 5, 3);
      Batch own = shared;
      for (int r = 1; r < TestType::architecture.replicas; ++r)
        own.ids.insert(own.ids.end(), shared.ids.begin(), shared.ids.end());
      const auto once = differentiate(model, shared, keep), each = differentiate(model, own, keep);
      CHECK(std::abs(once.loss - each.loss) < 1e-13 * each.loss);
      check_close(once.gradients, each.gradients, 1e-12);
    }
}
