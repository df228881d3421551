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
                  << ", micro-batches " << run.sequences / run.micro);
    const auto many = train_on<Model>(world, run);
    if (run.deterministic)
      CHECK_ON_RANK(many == one);
    else
      check_close(many, one, 1e-10);
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

TEST_CASE("Frozen parameters have no part anywhere") {
  using Model = Shared<crossing(4, CrossAttention::sublayer), double>;
  for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none})
    for (const bool deterministic : {false, true})
      check_worlds<Model>(
          {.sharding = sharding, .deterministic = deterministic, .trainable = "prefix,aggregate"}, {2, 5, 8});
}

TEST_CASE("A rank without a micro-batch, and ranks that own nothing, take part") {
  SharedRun run{.sequences = 2};
  run.shape.vocabulary = 3;
  run.shape.hidden = 4;
  run.shape.intermediate = 2;
  check_worlds<Shared<plain(1), double>>(run, {8, 13});
}
