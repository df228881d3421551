// Training on many ranks against training on one.
#include "sharded_run.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

template <class T>
using SharedPlain = Shared<plain(1), T>;
template <class T>
using SharedExpanded = Shared<crossing(2, CrossAttention::expanded), T>;

template <class Model, class Local>
void check_alone(const SharedRun& run) {
  const auto shared = train_on<Model>(1, run);
  Local model(run.shape, Uninitialised{}, Cpu<double>(CpuOptions{.threads = 1}));
  randomise(model, 7);
  Trainer<Local> trainer(model, {.sequences = run.micro,
                                 .tokens = run.tokens,
                                 .keep = run.keep,
                                 .adamw = {.weight_decay = 0.1},
                                 .trainable = Trainable(run.trainable)});
  for (Index step = 0; step < run.steps; ++step) {
    const auto result = trainer.step(micro_batches(run, step, 0, 1), 1e-2);
    CHECK_ON_RANK(result.loss == shared.losses[static_cast<std::size_t>(step)]);
    CHECK_ON_RANK(result.grad_norm == shared.norms[static_cast<std::size_t>(step)]);
  }
  CHECK_ON_RANK(weights_of(model) == shared.weights);
  CHECK_ON_RANK(gradients_of(model) == shared.gradients);
}

}  // namespace

TEST_CASE("Alone, the shared store is the local one, bit for bit") {
  SharedRun run;
  check_alone<SharedExpanded<double>, CausalLM<crossing(2, CrossAttention::expanded), Cpu<double>>>(run);
  run.trainable = "prefix,aggregate";
  run.keep = Keep::layer_inputs;
  check_alone<SharedExpanded<double>, CausalLM<crossing(2, CrossAttention::expanded), Cpu<double>>>(run);
}

TEST_CASE("Many ranks train as one does, however the model is shared") {
  for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none}) {
    SharedRun run{.sharding = sharding};
    const auto one = train_on<SharedExpanded<double>>(1, run);
    for (const int world : {2, 3, 8}) {
      INFO("sharding " << static_cast<int>(sharding) << ", world " << world);
      check_close(train_on<SharedExpanded<double>>(world, run), one, 1e-10);
    }
  }
}

TEST_CASE("The deterministic mode has the same bits for every number of ranks") {
  for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none}) {
    SharedRun run{.sequences = 11, .sharding = sharding, .deterministic = true};
    const auto one = train_on<SharedExpanded<float>>(1, run);
    for (int world = 2; world <= 8; ++world) {
      INFO("sharding " << static_cast<int>(sharding) << ", world " << world);
      CHECK_ON_RANK(train_on<SharedExpanded<float>>(world, run) == one);
    }
  }
}
