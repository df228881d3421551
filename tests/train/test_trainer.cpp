// Whole training steps: accumulation, clipping, what stops a run, resuming, threads.
#include <limits>
#include <parscale/train/trainer.hpp>

#include "../support/small_model.hpp"
#include "../support/thrown.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using Model = Expanded<double>;

/// Weights, gradients and moments.
template <class M>
struct State {
  Tensors<ScalarOf<M>> weights, first, second;
  bool operator==(const State&) const = default;
};
template <class M>
State<M> state_of(M& model) {
  State<M> state{weights_of(model), {}, {}};
  model.store().each([&](const Owned<ScalarOf<M>>& p) {
    if (!p.gradient) return;
    state.first[std::string(p.name)] = {p.first.data, p.first.data + p.first.count()};
    state.second[std::string(p.name)] = {p.second.data, p.second.data + p.second.count()};
  });
  return state;
}

/// Rows [begin, end) of a batch.
Batch rows(const Batch& batch, Index begin, Index end) {
  const auto part = [&](const auto& values) {
    using Values = std::decay_t<decltype(values)>;
    return values.empty()
               ? Values{}
               : Values(values.begin() + begin * batch.tokens, values.begin() + end * batch.tokens);
  };
  return {.sequences = end - begin,
          .tokens = batch.tokens,
          .ids = part(batch.ids),
          .targets = part(batch.targets),
          .starts = part(batch.starts)};
}

double norm_of(const Tensors<double>& tensors) {
  double sum = 0;
  for (const auto& [name, values] : tensors)
    for (double v : values) sum += v * v;
  return std::sqrt(sum);
}

}  // namespace

TEST_CASE("Micro-batches are one big batch, also when unequally many of their positions count") {
  const Shape shape = small_shape();
  Batch big = batch_of(random_tokens(30, shape.vocabulary, 1), 6, random_starts(6, 5, 1));
  for (std::size_t i = 0; i < 9; ++i) big.targets[i] = no_target;
  const std::vector<Batch> micro{rows(big, 0, 2), rows(big, 2, 4), rows(big, 4, 6)};
  CHECK(micro[0].counted() < micro[1].counted());

  auto one = random_model<Model>(shape, 1), three = random_model<Model>(shape, 1);
  Trainer<Model> at_once(one, {.sequences = 6, .tokens = 5}), in_parts(three, {.sequences = 2, .tokens = 5});
  const StepResult a = at_once.step(std::span(&big, 1), 1e-3), b = in_parts.step(micro, 1e-3);
  CHECK(std::abs(a.loss - b.loss) < 1e-13 * a.loss);
  CHECK(std::abs(a.grad_norm - b.grad_norm) < 1e-12 * a.grad_norm);
  check_close(gradients_of(one), gradients_of(three), 1e-12);
}

TEST_CASE("A micro-batch in which nothing counts adds nothing, and a step of such alone is refused") {
  const Shape shape = small_shape();
  std::vector<Batch> micro{random_batch(shape, 1, 5, 1), random_batch(shape, 1, 5, 2)};
  micro[1].targets.assign(5, no_target);
  auto one = random_model<Model>(shape, 1), two = random_model<Model>(shape, 1);
  Trainer<Model> alone(one, {.sequences = 1, .tokens = 5}), both(two, {.sequences = 1, .tokens = 5});
  CHECK(alone.step(std::span(micro).first(1), 1e-3).loss == both.step(micro, 1e-3).loss);
  CHECK(state_of(one) == state_of(two));
  CHECK(
      contains(thrown<ConfigurationError>([&] { both.step(std::span(micro).last(1), 1e-3); }), "no target"));
  CHECK_THROWS_AS(both.step({}, 1e-3), ConfigurationError);
}

TEST_CASE("The reported norm is that of all gradients, and the update uses the clipped ones") {
  const Shape shape = small_shape();
  const Batch batch = random_batch(shape, 2, 5, 1);
  for (const double most : {0.01, 0.0, 1e6}) {
    auto model = random_model<Model>(shape, 1);
    Trainer<Model> trainer(model, {.sequences = 2, .tokens = 5, .max_grad_norm = most});
    const StepResult result = trainer.step(std::span(&batch, 1), 1e-3);
    const auto gradients = gradients_of(model);
    CHECK(std::abs(result.grad_norm - norm_of(gradients)) < 1e-13 * result.grad_norm);
    CHECK(result.grad_norm > 0.01);
    const double factor = most == 0.01 ? 0.01 / (result.grad_norm + 1e-6) : 1.0;
    auto expected = gradients;
    for (auto& [name, values] : expected)
      for (double& v : values) v *= 0.1 * factor;
    check_close(state_of(model).first, expected, 1e-14);
  }
}

TEST_CASE("Steps are counted, and gradients do not leak from one into the next") {
  const Shape shape = small_shape();
  const Batch batch = random_batch(shape, 2, 5, 1);
  auto model = random_model<Model>(shape, 1);
  Trainer<Model> trainer(model, {.sequences = 2, .tokens = 5});
  CHECK(trainer.steps() == 0);
  const auto first = trainer.step(std::span(&batch, 1), 0.0);
  CHECK(trainer.steps() == 1);
  const auto second = trainer.step(std::span(&batch, 1), 0.0);
  CHECK(trainer.steps() == 2);
  CHECK(first.loss == second.loss);
  CHECK(first.grad_norm == second.grad_norm);
}

TEST_CASE("A resumed run continues bit for bit") {
  const Shape shape = small_shape();
  std::vector<Batch> batches;
  for (std::uint64_t i = 0; i < 4; ++i) batches.push_back(random_batch(shape, 1, 5, i));
  const TrainerOptions options{.sequences = 1, .tokens = 5, .adamw = {.weight_decay = 0.1}};
  auto whole = random_model<Model>(shape, 1);
  Trainer<Model> trainer(whole, options);
  for (std::size_t i = 0; i < 2; ++i) trainer.step(std::span(&batches[i], 1), 1e-2);
  const auto saved = state_of(whole);
  for (std::size_t i = 2; i < 4; ++i) trainer.step(std::span(&batches[i], 1), 1e-2);

  auto later = random_model<Model>(shape, 2);
  Trainer<Model> resumed(later, options);
  later.store().each([&](const Owned<double>& p) {
    const std::string name(p.name);
    std::copy(saved.weights.at(name).begin(), saved.weights.at(name).end(), p.weight.data);
    std::copy(saved.first.at(name).begin(), saved.first.at(name).end(), p.first.data);
    std::copy(saved.second.at(name).begin(), saved.second.at(name).end(), p.second.data);
  });
  resumed.resume(2);
  for (std::size_t i = 2; i < 4; ++i) resumed.step(std::span(&batches[i], 1), 1e-2);
  CHECK(resumed.steps() == 4);
  CHECK(state_of(later) == state_of(whole));
}

TEST_CASE("Training learns a batch by heart") {
  const Shape shape = small_shape();
  const Batch batch = random_batch(shape, 2, 6, 1);
  Model model(shape, 7, Cpu<double>(CpuOptions{.threads = 1}));
  Trainer<Model> trainer(model, {.sequences = 2, .tokens = 6});
  const double first = trainer.step(std::span(&batch, 1), 1e-2).loss;
  CHECK(std::abs(first - std::log(19.0)) < 0.1);
  double last = first;
  for (int i = 0; i < 60; ++i) last = trainer.step(std::span(&batch, 1), 1e-2).loss;
  CHECK(last < 0.3 * first);
}

TEST_CASE("A weight that is not finite stops the step before anything changes") {
  const Shape shape = small_shape();
  const Batch batch = random_batch(shape, 2, 5, 1);
  auto model = random_model<Model>(shape, 1);
  Trainer<Model> trainer(model, {.sequences = 2, .tokens = 5});
  trainer.step(std::span(&batch, 1), 1e-3);
  change_weights(model, [](const std::string& name, auto& values) {
    if (name == "model.layers.1.mlp.up_proj.weight") values[3] = std::numeric_limits<double>::infinity();
  });
  const auto before = state_of(model);
  const auto message = thrown<NumericError>([&] { trainer.step(std::span(&batch, 1), 1e-3); });
  CHECK(contains(message, "loss is not a finite number"));
  CHECK(contains(message, "step 2"));
  CHECK(contains(message, "the weights were not updated"));
  CHECK(contains(message, "try:"));
  CHECK(state_of(model) == before);
  CHECK(trainer.steps() == 1);
}

TEST_CASE("A gradient that overflows stops the step before anything changes, and is named") {
  Shape shape = small_shape();
  shape.rms_norm_eps = 0;
  shape.tied = false;
  shape.replica_embedding = false;
  const Batch batch = random_batch(shape, 2, 5, 1);
  auto model = random_model<Model>(shape, 1);
  change_weights(model, [](const std::string& name, auto& values) {
    if (name == "model.embed_tokens.weight")
      for (double& v : values) v = std::copysign(3e-153, v) + 1e-153 * v;  // its norm divides by this
  });
  const auto message = [&] {
    Trainer<Model> trainer(model, {.sequences = 2, .tokens = 5});
    const auto before = state_of(model);
    const auto text = thrown<NumericError>([&] { trainer.step(std::span(&batch, 1), 1e-3); });
    CHECK(state_of(model) == before);
    return text;
  }();
  CHECK(contains(message, "gradient is not finite"));
  CHECK(contains(message, "step 1, the gradient of model.embed_tokens.weight"));
}

TEST_CASE("A learning rate that blew the weights up is caught at the next step") {
  const Shape shape = small_shape();
  const Batch batch = random_batch(shape, 2, 5, 1);
  auto model = random_model<Expanded<float>>(shape, 1);
  Trainer<Expanded<float>> trainer(model, {.sequences = 2, .tokens = 5});
  trainer.step(std::span(&batch, 1), 1e30);
  const auto before = state_of(model);
  CHECK_THROWS_AS(trainer.step(std::span(&batch, 1), 1e30), NumericError);
  CHECK(state_of(model) == before);
}

TEST_CASE("A list of trainable names that matches nothing is refused") {
  auto model = random_model<Model>(small_shape(), 1);
  const auto message =
      thrown<ConfigurationError>([&] { Trainer<Model>(model, {.trainable = Trainable("prefixes")}); });
  CHECK(contains(message, "matches no parameter"));
}
