// parscale-train as several processes, of which one dies, hangs, is late, or means another run: nobody is
// left behind, and the message says who it was.
#include <catch2/generators/catch_generators.hpp>

#include "world.hpp"

using namespace parscale::test;

namespace {

/// A run of which nobody waits for the others for long.
Words hasty_run(const Scratch& scratch, const std::string& output, const Words& more = {}) {
  return small_run(scratch, output, Words{one_sequence, "training.ddp_timeout=3"} + more);
}

void check(Started& rank, int code, const std::string& words) {
  const Outcome outcome = rank.wait();
  INFO(outcome.out << outcome.err);
  CHECK(outcome.code == code);
  CHECK(has(outcome.err, words));
}

}  // namespace

TEST_CASE("A rank that is killed ends all others, which name it; the last checkpoint is good") {
  const Scratch scratch;
  const int victim = GENERATE(0, 1, 2);
  const Words words = small_run(scratch, "killed", {deterministic, "training.save_steps=5"});
  World world(scratch, 3, words + Words{"training.max_steps=100000"});
  REQUIRE(world[0].wait_for("saved "));
  world[victim].signal(SIGKILL);
  const auto killed = std::chrono::steady_clock::now();
  const auto outcomes = world.wait();
  CHECK(std::chrono::steady_clock::now() - killed < std::chrono::seconds(10));
  for (int rank = 0; rank < 3; ++rank) {
    const Outcome& outcome = outcomes[static_cast<std::size_t>(rank)];
    INFO("rank " << rank << ": " << outcome.err);
    CHECK(outcome.code == (rank == victim ? 128 + SIGKILL : 5));
    if (rank == victim) continue;
    CHECK(has(outcome.err, "Rank " + std::to_string(victim)));
    CHECK(has(outcome.err, "step "));
  }
  const std::string steps = "training.max_steps=" + std::to_string(last_checkpoint(scratch / "killed") + 2);
  train(scratch, 2, words + Words{resume, steps});
  train(scratch, 1, small_run(scratch, "whole", {deterministic, steps}));
  CHECK(weights(scratch / "killed") == weights(scratch / "whole"));
}

TEST_CASE("A rank that is stopped ends all others soon after the time limit") {
  const Scratch scratch;
  const int victim = GENERATE(0, 1);
  World world(
      scratch, 2,
      small_run(scratch, "stopped", {one_sequence, "training.max_steps=100000", "training.ddp_timeout=2"}));
  REQUIRE(world[0].wait_for("/100000"));
  world[victim].signal(SIGSTOP);
  const auto stopped = std::chrono::steady_clock::now();
  const Outcome other = world[1 - victim].wait();
  CHECK(std::chrono::steady_clock::now() - stopped < std::chrono::seconds(2 + 5));
  CHECK(other.code == 5);
  CHECK(has(other.err, "Rank " + std::to_string(victim)));
  CHECK(has(other.err, "hangs"));
}

TEST_CASE("Ranks that were given different options say which") {
  const Scratch scratch;
  World world(scratch, 2, [&](int rank) {
    return small_run(scratch, "differ",
                     {rank == 0 ? "training.learning_rate=0.01" : "training.learning_rate=0.02"});
  });
  for (const Outcome& outcome : world.wait()) {
    CHECK(outcome.code == 5);
    CHECK(has(outcome.err, "training.learning_rate"));
    CHECK(has(outcome.err, "0.02"));
  }
}

TEST_CASE("A rank that cannot go on says why to all") {
  const Scratch scratch;
  train(scratch, 1, small_run(scratch, "taken", {one_sequence, "training.save_steps=3"}));
  World world(scratch, 2, small_run(scratch, "taken", {one_sequence}));
  const auto outcomes = world.wait();
  CHECK(outcomes[0].code == 2);
  CHECK(outcomes[1].code == 5);
  CHECK(has(outcomes[1].err, "holds checkpoints of an earlier run"));
}

TEST_CASE("A wrong MASTER_PORT: rank 0 says who is missing, the other where it has looked") {
  const Scratch scratch;
  const int port = free_port(), wrong = free_port();
  const Words words = hasty_run(scratch, "wrong-port");
  Started first(scratch, "train", words, launched(0, 2, port));
  Started other(scratch, "train", words, launched(1, 2, wrong));
  check(first, 5, "Ranks are missing: 1 of 2");
  check(other, 5, "127.0.0.1 port " + std::to_string(wrong));
  CHECK(has(other.wait().err, "Rank 0 did not answer"));
}

TEST_CASE("A rank that is late is waited for, one that never comes is named") {
  const Scratch scratch;
  const int port = free_port();
  const Words words = hasty_run(scratch, "late");
  const int late = GENERATE(0, 1);
  Started early(scratch, "train", words, launched(1 - late, 2, port));
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  Started tardy(scratch, "train", words, launched(late, 2, port));
  check(early, 0, "");
  check(tardy, 0, "");
  Started alone(scratch, "train", hasty_run(scratch, "never"), launched(0, 3, port));
  check(alone, 5, "Ranks are missing: 1-2 of 3");
}

TEST_CASE("Two runs on one port: the second is told, the first goes on") {
  const Scratch scratch;
  const int port = free_port();
  const Words words = hasty_run(scratch, "first", {"training.max_steps=100000"});
  World first(
      scratch, 2, [&](int) { return words; }, port);
  REQUIRE(first[0].wait_for(" 1/100000"));
  const auto second = [&](int rank) {
    return Started(scratch, "train", hasty_run(scratch, "second"),
                   launched(rank, 2, port) + Words{"PARSCALE_RUN_ID=another"});
  };
  Started intruder = second(0), companion = second(1);
  check(intruder, 5, "The port of the rendezvous cannot be opened");
  check(companion, 5, "not to \"another\"");
  first[1].signal(SIGTERM);
  for (const Outcome& outcome : first.wait()) CHECK(outcome.code == 128 + SIGTERM);
}

TEST_CASE("Ranks that read different texts say so") {
  const Scratch scratch;
  write_text(scratch / "other.txt", read_text(source_dir / "data/austen/emma.txt").substr(0, 30000));
  World world(scratch, 2, [&](int rank) {
    return hasty_run(scratch, "texts") +
           (rank == 0 ? Words{} : Words{"training.dataset=" + (scratch / "other.txt").string()});
  });
  for (int rank : {0, 1}) check(world[rank], 5, "The ranks do not agree on training.dataset");
}
