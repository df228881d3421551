// The memory plan against what is allocated.
#include <parscale/train/memory_plan.hpp>

#include "../support/counting_cpu.hpp"
#include "../support/small_model.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using Model = CausalLM<crossing(3, CrossAttention::expanded), CountingCpu>;

std::size_t line(const MemoryPlan& plan, const std::string& what) {
  for (const auto& l : plan.lines)
    if (l.what == what) return l.bytes;
  FAIL("the plan has no line " << what);
  return 0;
}

/// Bytes that a model and its trainer ask for, and what the plan says.
struct Measured {
  std::size_t asked, asked_by_a_step;
  MemoryPlan plan;
};
Measured measure(Keep keep, const char* trainable) {
  const Shape shape = small_shape();
  Model model(shape, 1, CountingCpu());
  const TrainerOptions options{.sequences = 2, .tokens = 7, .keep = keep, .trainable = Trainable(trainable)};
  Trainer<Model> trainer(model, options);
  const std::size_t asked = model.backend().asked;
  const Batch batch = random_batch(shape, 2, 7, 1);
  trainer.step(std::span(&batch, 1), 1e-3);
  return {asked, model.backend().asked - asked,
          memory_plan<Model>(shape, {2, 7, keep, false}, model.parameters(), model.store().trained(),
                             model.backend())};
}

}  // namespace

TEST_CASE("The plan of a training run is what is allocated for it, and a step allocates nothing more") {
  for (Keep keep : {Keep::everything, Keep::products, Keep::layer_inputs})
    for (const char* trainable : {"", "prefix,aggregate"}) {
      const Measured m = measure(keep, trainable);
      CHECK(m.asked == m.plan.total() - line(m.plan, "backend scratch"));
      CHECK(m.asked_by_a_step == 0);
    }
}

TEST_CASE("A frozen run plans and allocates less") {
  const Measured full = measure(Keep::everything, ""), frozen = measure(Keep::everything, "prefix,aggregate");
  CHECK(frozen.asked < full.asked);
  CHECK(line(frozen.plan, "gradients") < line(full.plan, "gradients"));
  CHECK(line(frozen.plan, "optimizer moments") == 2 * line(frozen.plan, "gradients"));
  CHECK(line(frozen.plan, "weights") == line(full.plan, "weights"));
}

TEST_CASE("Recomputation keeps less, and a pass without backward least") {
  const Shape shape = [] {
    Shape s = small_shape();
    s.layers = 6;
    return s;
  }();
  const auto bytes = [&](Keep keep) { return Model::Memory::bytes(shape, {2, 7, keep, false}); };
  CHECK(bytes(Keep::products) < bytes(Keep::everything));
  CHECK(bytes(Keep::layer_inputs) < bytes(Keep::products));
  CHECK(bytes(Keep::nothing) < bytes(Keep::layer_inputs));
}

TEST_CASE(
    "Activations grow with rows, tokens and own ids, and nothing else of a pass without backward with "
    "layers") {
  Shape shape = small_shape();
  const auto bytes = [&](Index sequences, Index tokens, Keep keep, bool own_ids = false) {
    return Model::Memory::bytes(shape, {sequences, tokens, keep, own_ids});
  };
  CHECK(bytes(2, 64, Keep::everything) < bytes(3, 64, Keep::everything));
  CHECK(bytes(2, 64, Keep::everything) < bytes(2, 65, Keep::everything));
  CHECK(bytes(2, 64, Keep::everything, false) < bytes(2, 64, Keep::everything, true));
  const auto nothing = bytes(2, 64, Keep::nothing), everything = bytes(2, 64, Keep::everything);
  shape.layers = 10;
  CHECK(bytes(2, 64, Keep::nothing) == nothing);
  CHECK(bytes(2, 64, Keep::everything) > everything);
}

TEST_CASE("Bytes are written in mebibytes and gibibytes") {
  CHECK(bytes_text(0) == "0.0 MiB");
  CHECK(bytes_text(std::size_t{1} << 20) == "1.0 MiB");
  CHECK(bytes_text((std::size_t{17} << 20) + (std::size_t{300} << 10)) == "17.3 MiB");
  CHECK(bytes_text((std::size_t{1} << 30) + (std::size_t{1} << 29)) == "1.5 GiB");
}
