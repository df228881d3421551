/// Training on many ranks that are threads, and what came of it, put together again.
#pragma once

#include <mutex>

#include <catch2/catch_test_macros.hpp>

#include <parscale/distributed/threads_communicator.hpp>
#include <parscale/store/sharded_store.hpp>

#include "../support/small_model.hpp"

/// CHECK for the threads of ranks: Catch2's own is for one thread at a time.
#define CHECK_ON_RANK(...)                                                \
  do {                                                                    \
    const bool holds_on_rank = static_cast<bool>(__VA_ARGS__);            \
    const std::lock_guard one_at_a_time(parscale::test::catch_is_in_use); \
    CHECK(holds_on_rank);                                                 \
  } while (false)

namespace parscale::test {
inline std::mutex catch_is_in_use;
}  // namespace parscale::test

namespace parscale::test {

template <Architecture arch, class T>
using Shared = CausalLM<arch, Cpu<T>, ShardedStore>;

/// What a run is: the same for every number of ranks.
struct SharedRun {
  Shape shape = small_shape();
  Index sequences = 8;  ///< of the global batch
  Index micro = 1;      ///< of a micro-batch
  Index tokens = 5;
  Index steps = 2;
  Keep keep = Keep::everything;
  Sharding sharding = Sharding::full;
  bool deterministic = false;
  std::string trainable = {};
  int host_ranks = 1;
  bool rounds_gradients = false;

  Ranks ranks(distributed::Group* group) const {
    return {.group = group,
            .sharding = sharding,
            .deterministic = deterministic,
            .host_ranks = host_ranks,
            .rounds_gradients = rounds_gradients};
  }
};

/// What it gives: losses and norms of the steps, whole gradients of the last one, whole weights and moments.
template <class T>
struct Outcome {
  std::vector<double> losses, norms;
  Tensors<T> gradients, weights, first, second;
  bool operator==(const Outcome&) const = default;
};

/// Sequence j is a function of j alone; every third has positions that do not count.
inline Batch sequences(const SharedRun& run, Index step, Stretch which) {
  Batch batch{.sequences = which.count, .tokens = run.tokens};
  for (Index i = which.first; i < which.first + which.count; ++i) {
    const auto j = static_cast<std::uint64_t>(step * run.sequences + i);
    Batch row = random_batch(run.shape, 1, run.tokens, 100 + j);
    if (j % 3 == 0) row.targets.front() = no_target;
    batch.ids.insert(batch.ids.end(), row.ids.begin(), row.ids.end());
    batch.targets.insert(batch.targets.end(), row.targets.begin(), row.targets.end());
  }
  return batch;
}

/// The micro-batches of a rank: its share of the global batch's micro-batches.
inline std::vector<Batch> micro_batches(const SharedRun& run, Index step, int rank, int world) {
  const Stretch mine = share_of(run.sequences / run.micro, rank, world);
  std::vector<Batch> batches;
  for (Index i = mine.first; i < mine.first + mine.count; ++i)
    batches.push_back(sequences(run, step, {i * run.micro, run.micro}));
  return batches;
}

/// The model of a rank, the same weights on any number of ranks.
template <class Model>
Model shared_model(const SharedRun& run, distributed::Group* group) {
  using T = ScalarOf<Model>;
  Model model(run.shape, Uninitialised{}, Cpu<T>(CpuOptions{.threads = 1}), run.ranks(group));
  model.store().each([&](const Owned<T>& p) {
    std::vector<T> values(static_cast<std::size_t>(p.weight.count()));
    const std::uint64_t stream = stream_of(p.name);
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<T>(0.3 * normal(7, stream, static_cast<std::uint64_t>(p.offset) + i) +
                                 (fill_of(p.name) == Fill::ones));
    set_weight<Cpu<T>>(p, 0, values, model.backend());
  });
  return model;
}

/// Whole tensors out of the ranks' parts.
template <class Model, class T = ScalarOf<Model>>
Tensors<T> whole_tensors(Model& model, Part<T> Owned<T>::*what) {
  Tensors<T> whole;
  model.store().each([&](const Owned<T>& p) {
    const Part<T> own = p.*what;
    if (own.data == nullptr) return;
    std::vector<T> values(static_cast<std::size_t>(p.extent.count()));
    model.store().gather(own, p.offset, 0, values, model.backend());
    whole[std::string(p.name)] = values;
  });
  return whole;
}

template <class Model>
Outcome<ScalarOf<Model>> train_rank(const SharedRun& run, distributed::Group* group) {
  using T = ScalarOf<Model>;
  const int rank = group == nullptr ? 0 : group->rank(), world = group == nullptr ? 1 : group->size();
  Model model = shared_model<Model>(run, group);
  Trainer<Model> trainer(model, {.sequences = run.micro,
                                 .tokens = run.tokens,
                                 .keep = run.keep,
                                 .adamw = {.weight_decay = 0.1},
                                 .trainable = Trainable(run.trainable)});
  Outcome<T> out;
  for (Index step = 0; step < run.steps; ++step) {
    const auto result = trainer.step(micro_batches(run, step, rank, world), 1e-2);
    out.losses.push_back(result.loss);
    out.norms.push_back(result.grad_norm);
  }
  out.gradients = whole_tensors(model, &Owned<T>::gradient);
  out.weights = whole_tensors(model, &Owned<T>::weight);
  out.first = whole_tensors(model, &Owned<T>::first);
  out.second = whole_tensors(model, &Owned<T>::second);
  return out;
}

/// The outcome on `world` ranks; all of them agree on it.
template <class Model>
Outcome<ScalarOf<Model>> train_on(int world, const SharedRun& run) {
  if (world == 1) return train_rank<Model>(run, nullptr);
  std::vector<Outcome<ScalarOf<Model>>> outcomes(static_cast<std::size_t>(world));
  distributed::run_ranks(world, [&](distributed::ThreadsCommunicator& on) {
    distributed::GroupOf group(on);
    outcomes[static_cast<std::size_t>(on.rank())] = train_rank<Model>(run, &group);
  });
  for (const auto& outcome : outcomes) CHECK(outcome == outcomes.front());
  return outcomes.front();
}

template <class T>
void check_close(const Outcome<T>& a, const Outcome<T>& b, double tolerance) {
  REQUIRE(a.losses.size() == b.losses.size());
  for (std::size_t i = 0; i < a.losses.size(); ++i) {
    CHECK(std::abs(a.losses[i] - b.losses[i]) <= tolerance * std::abs(a.losses[i]));
    CHECK(std::abs(a.norms[i] - b.norms[i]) <= tolerance * std::abs(a.norms[i]));
  }
  check_close(a.gradients, b.gradients, tolerance);
  check_close(a.weights, b.weights, tolerance);
  check_close(a.first, b.first, tolerance);
  check_close(a.second, b.second, tolerance);
}

}  // namespace parscale::test
