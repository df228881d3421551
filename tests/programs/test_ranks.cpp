// parscale-train as several processes: the numbers of one process, and one checkpoint for all.
#include <catch2/generators/catch_generators.hpp>

#include "world.hpp"

using namespace parscale::test;

TEST_CASE("Any number of ranks has the losses and the weights of one process, whatever they share") {
  const Scratch scratch;
  const Words exact{one_sequence, "training.dtype=float64", "training.eval_fraction=0.2",
                    "training.max_eval_samples=5", "training.eval_steps=3"};
  train(scratch, 1, small_run(scratch, "one", exact));
  const auto compare = [&](int world, const std::string& sharding) {
    INFO(world << " ranks, " << sharding);
    const std::string name = sharding + std::to_string(world);
    train(scratch, world, small_run(scratch, name, exact + Words{"training.sharding=" + sharding}));
    for (const char* what : {"loss", "eval_loss"}) {
      const auto expected = measured(scratch / "one", what), got = measured(scratch / name, what);
      REQUIRE(got.size() == expected.size());
      REQUIRE_FALSE(got.empty());
      for (std::size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - expected[i]) < 1e-9);
    }
    CHECK(measured(scratch / name, "tokens") == measured(scratch / "one", "tokens"));
    CHECK(measured(scratch / name, "slowest_rank_seconds").size() == 6);
    CHECK(difference(scratch / "one", scratch / name) < 1e-8);
  };
  compare(2, "full");
  compare(3, "full");
  compare(3, "optimizer");
  compare(2, "none");
}

TEST_CASE("Deterministic ranks have the bits of one process") {
  const Scratch scratch;
  train(scratch, 1, small_run(scratch, "one", {deterministic}));
  for (const int world : {2, 3, 4}) {
    INFO(world << " ranks");
    const std::string name = "world" + std::to_string(world);
    train(scratch, world, small_run(scratch, name, {deterministic}));
    CHECK(measured(scratch / name, "loss") == measured(scratch / "one", "loss"));
    CHECK(weights(scratch / name) == weights(scratch / "one"));
  }
}

TEST_CASE("A checkpoint of three ranks goes on with one or two, to the same bits, and back") {
  const Scratch scratch;
  train(scratch, 1, small_run(scratch, "whole", {deterministic}));
  for (const int world : {1, 2}) {
    INFO("3 ranks, then " << world << ", then 3");
    const std::string name = "then" + std::to_string(world);
    const Words words = small_run(scratch, name, {deterministic, "training.save_steps=1", resume});
    train(scratch, 3, words + Words{"training.max_steps=2"});
    train(scratch, world, words + Words{"training.max_steps=4"});
    train(scratch, 3, words);
    CHECK(weights(scratch / name) == weights(scratch / "whole"));
    CHECK(measured(scratch / name, "loss") == measured(scratch / "whole", "loss"));
  }
}

TEST_CASE("Rank 0 speaks for all; each rank has a log of its own on request") {
  const Scratch scratch;
  World world(scratch, 2, small_run(scratch, "said", {one_sequence, "training.rank_logs=true"}));
  const auto outcomes = world.wait();
  REQUIRE(outcomes[0].code == 0);
  CHECK(has(outcomes[0].out, "on each of 2 ranks"));
  CHECK(outcomes[1].out.empty());
  CHECK(outcomes[1].err.empty());
  for (const std::string rank : {"0", "1"}) {
    const std::string log = read_text(scratch / "said" / "logs" / ("rank-" + rank + ".log"));
    CHECK(has(log, "rank " + rank + " (process "));
    CHECK(has(log, "of 2 ranks"));
    CHECK(has(log, "step 6  loss "));
    CHECK(has(log, "finished  6 steps"));
  }
}

TEST_CASE("The plan for many ranks is what their run takes, and more of them take less") {
  const Scratch scratch;
  const Words words = small_run(scratch, "planned", {one_sequence});
  const Outcome plan = run(scratch, "train", words + Words{"training.plan_world=3"});
  REQUIRE(plan.code == 0);
  CHECK_FALSE(fs::exists(scratch / "planned"));
  CHECK(has(plan.out, "on each of 3 ranks"));
  CHECK(has(plan.out, "ranks     recompute=layer: 1 "));
  const std::string before = "with recompute=none: ";
  REQUIRE(has(plan.out, before));
  const std::size_t from = plan.out.find(before) + before.size();
  const std::string lines = plan.out.substr(from, plan.out.find('\n', from) - from);
  CHECK(has(lines, "gathered weights"));
  World world(scratch, 3, words);
  const auto outcomes = world.wait();
  INFO(plan.out << outcomes[0].out);
  CHECK(has(outcomes[0].out, lines));
}

TEST_CASE("SIGTERM to any one rank saves on all at the same step") {
  const Scratch scratch;
  const int asked = GENERATE(0, 2);
  const Words words = small_run(scratch, "stopped", {deterministic, "training.max_steps=40"});
  World world(scratch, 3, words);
  REQUIRE(world[0].wait_for("step  3/40"));
  world[asked].signal(SIGTERM);
  for (const Outcome& outcome : world.wait()) CHECK(outcome.code == 128 + SIGTERM);
  train(scratch, 2, words + Words{resume});
  train(scratch, 1, small_run(scratch, "whole", {deterministic, "training.max_steps=40"}));
  CHECK(weights(scratch / "stopped") == weights(scratch / "whole"));
}
