// Every way to share every kind of model, against one rank; and the crash that began this project.

#include "sharded_run.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

/// Worlds that divide nothing evenly beside those that divide something.
template <class Model>
void check_worlds(const SharedRun& run, std::initializer_list<int> worlds) {
  const auto one = train_on<Model>(1, run);
  for (const int world : worlds) {
    INFO("world " << world << ", sharding " << static_cast<int>(run.sharding) << ", tied " << run.shape.tied
                  << ", micro-batches " << run.sequences / run.micro << ", ranks of a host "
                  << run.host_ranks);
    const auto many = train_on<Model>(world, run);
    if (run.deterministic)
      CHECK_ON_RANK(many == one);
    else
      check_close(many, one, 1e-10);
  }
}

/// Hosts of two and of four ranks with a copy each, and the two ends: one rank a copy, one copy for all.
template <class Model>
void check_hosts() {
  for (const bool tied : {true, false}) {
    SharedRun run{.sequences = 16, .steps = 5, .sharding = Sharding::hybrid};
    run.shape.tied = tied;
    for (const int host_ranks : {1, 2, 4, 8}) {
      run.host_ranks = host_ranks;
      check_worlds<Model>(run, {8});
    }
    run.host_ranks = 2;
    run.sequences = 11;
    check_worlds<Model>(run, {4, 6});
    run.deterministic = true;
    check_worlds<Model>(run, {4});
  }
}

/// Tied and untied, one micro-batch a rank and three, all ways to share, the deterministic mode.
template <class Model>
void check_matrix() {
  for (const bool tied : {true, false})
    for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none}) {
      SharedRun run{.steps = 5, .sharding = sharding};
      run.shape.tied = tied;
      check_worlds<Model>(run, {2, 3, 8});
      run.sequences = 24;
      run.keep = Keep::layer_inputs;
      check_worlds<Model>(run, {4, 8});
      run.deterministic = true;
      run.sequences = 5;
      check_worlds<Model>(run, {2, 7});
    }
  check_hosts<Model>();
}

}  // namespace

TEST_CASE("Matrix: plain Qwen2 on 1 to 8 ranks") { check_matrix<Shared<plain(1), double>>(); }
TEST_CASE("Matrix: two replicas on 1 to 8 ranks") { check_matrix<Shared<plain(2), double>>(); }
TEST_CASE("Matrix: four crossing replicas on 1 to 8 ranks") {
  check_matrix<Shared<crossing(4, CrossAttention::sublayer), double>>();
}
TEST_CASE("Matrix: eight replicas that expand on 1 to 8 ranks") {
  check_matrix<Shared<crossing(8, CrossAttention::expanded), double>>();
}

TEST_CASE("Hosts of unequal size cannot have a copy each") {
  SharedRun run{.sharding = Sharding::hybrid, .host_ranks = 2};
  using Model = Shared<plain(1), double>;
  CHECK_THROWS_AS(train_on<Model>(3, run), ConfigurationError);
}

/// Each rank's gradient is rounded once, and so is their sum, to 8 bits: for hybrid, once more.
TEST_CASE("Gradients that travel as bfloat16 are the sums to its rounding") {
  using Model = Shared<crossing(4, CrossAttention::sublayer), double>;
  for (const bool tied : {true, false})
    for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none, Sharding::hybrid}) {
      SharedRun run{.sequences = 24, .steps = 1, .sharding = sharding, .host_ranks = 2};
      run.shape.tied = tied;
      const auto one = train_on<Model>(1, run);
      run.rounds_gradients = true;
      for (const int world : {4, 8}) {
        const auto many = train_on<Model>(world, run);
        INFO("world " << world << ", sharding " << static_cast<int>(sharding) << ", tied " << tied);
        CHECK(std::abs(many.losses[0] - one.losses[0]) <= 1e-12 * one.losses[0]);
        check_close(many.gradients, one.gradients, 3.0 / 256);
        CHECK(!(many.gradients == one.gradients));
        double largest = 0;
        for (const auto& [name, values] : one.gradients)
          largest = std::max(largest, relative_difference(values, many.gradients.at(name)));
        CHECK(largest > 1e-4);
      }
    }
}

TEST_CASE("Frozen parameters have no part anywhere") {
  using Model = Shared<crossing(4, CrossAttention::sublayer), double>;
  for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none, Sharding::hybrid})
    for (const bool deterministic : {false, true})
      check_worlds<Model>({.sharding = sharding,
                           .deterministic = deterministic,
                           .trainable = "prefix,aggregate",
                           .host_ranks = sharding == Sharding::hybrid ? 2 : 1},
                          {2, 4, 8});
}

TEST_CASE("A rank without a micro-batch, and ranks that own nothing, take part") {
  SharedRun run{.sequences = 2};
  run.shape.vocabulary = 3;
  run.shape.hidden = 4;
  run.shape.intermediate = 2;
  check_worlds<Shared<plain(1), double>>(run, {8, 13});
}
