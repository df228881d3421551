// parscale-train as several processes, started as a launcher starts them: the numbers of one process, one
// checkpoint for all, and nobody left behind when one of them dies.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <parscale/io/safetensors.hpp>

#include "program.hpp"

using namespace parscale::test;
using parscale::io::Json;
using Words = std::vector<std::string>;

namespace {

/// A port that is free now, to be the one after MASTER_PORT.
int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  REQUIRE(::bind(socket, reinterpret_cast<const sockaddr*>(&address), size) == 0);
  REQUIRE(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  ::close(socket);
  return ntohs(address.sin_port);
}

/// One parscale-train a rank. `words_of(rank)` is each one's command line.
class World {
 public:
  World(const Scratch& scratch, int size, const std::function<Words(int rank)>& words_of) {
    const std::string port = std::to_string(free_port() - 1), world = std::to_string(size);
    for (int rank = 0; rank < size; ++rank) {
      const std::string r = std::to_string(rank);
      const Words environment{"RANK=" + r,
                              "WORLD_SIZE=" + world,
                              "LOCAL_RANK=" + r,
                              "LOCAL_WORLD_SIZE=" + world,
                              "MASTER_ADDR=127.0.0.1",
                              "MASTER_PORT=" + port};
      ranks_.push_back(std::make_unique<Started>(scratch, "train", words_of(rank), environment));
    }
  }
  World(const Scratch& scratch, int size, const Words& words)
      : World(scratch, size, [&](int) { return words; }) {}
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World() {
    for (const auto& rank : ranks_) rank->signal(SIGKILL);
    for (const auto& rank : ranks_) rank->wait();
  }

  Started& operator[](int rank) { return *ranks_[static_cast<std::size_t>(rank)]; }
  std::vector<Outcome> wait() {
    std::vector<Outcome> outcomes;
    for (const auto& rank : ranks_) outcomes.push_back(rank->wait());
    return outcomes;
  }

 private:
  std::vector<std::unique_ptr<Started>> ranks_;
};

/// Trains to the end; a world of one is started by nobody.
void train(const Scratch& scratch, int world, const Words& words) {
  if (world == 1) {
    REQUIRE(run(scratch, "train", words).code == 0);
    return;
  }
  const auto outcomes = World(scratch, world, words).wait();
  for (const Outcome& outcome : outcomes) {
    INFO(outcome.out << outcome.err);
    REQUIRE(outcome.code == 0);
  }
}

/// A small run whose global batch does not depend on the number of ranks.
Words small_run(const Scratch& scratch, const std::string& output, const Words& more = {}) {
  return tiny_run(scratch, output) +
         Words{"parscale.parscale_n=4", "parscale.parscale_n_tokens=4", "training.global_batch_size=6",
               "training.threads=1", "training.ddp_timeout=60"} +
         more;
}

const std::string one_sequence = "training.per_device_train_batch_size=1";
const std::string deterministic = "training.deterministic=true";
const std::string resume = "training.resume_from_checkpoint=true";

std::string weights(const fs::path& folder) { return read_text(folder / "model.safetensors"); }

std::vector<double> measured(const fs::path& folder, const char* what) {
  std::vector<double> values;
  std::ifstream file(folder / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const Json object = parscale::io::parse_json(line, "metrics");
    if (object.contains(what)) values.push_back(object[what].get<double>());
  }
  return values;
}

/// The largest difference between two models saved in float64.
double difference(const fs::path& a, const fs::path& b) {
  const parscale::io::SafetensorsFile one(a / "model.safetensors"), other(b / "model.safetensors");
  double largest = 0;
  for (const auto& info : one.tensors()) {
    const auto x = one.bytes(info), y = other.bytes(*other.find(info.name));
    REQUIRE(x.size() == y.size());
    for (std::size_t at = 0; at < x.size(); at += sizeof(double)) {
      double left = 0, right = 0;
      std::memcpy(&left, x.data() + at, sizeof left);
      std::memcpy(&right, y.data() + at, sizeof right);
      largest = std::max(largest, std::abs(left - right));
    }
  }
  return largest;
}

/// Steps of the newest regular checkpoint.
int last_checkpoint(const fs::path& folder) {
  int last = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("checkpoint-") && name.find_first_not_of("0123456789", 11) == name.npos)
      last = std::max(last, std::stoi(name.substr(11)));
  }
  return last;
}

}  // namespace

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

TEST_CASE("Rank 0 speaks for all") {
  const Scratch scratch;
  World world(scratch, 2, small_run(scratch, "said", {one_sequence}));
  const auto outcomes = world.wait();
  REQUIRE(outcomes[0].code == 0);
  CHECK(has(outcomes[0].out, "on each of 2 ranks"));
  CHECK(outcomes[1].out.empty());
  CHECK(outcomes[1].err.empty());
}

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
