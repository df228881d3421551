/// parscale-train as several processes, started as a launcher starts them, and what they leave.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <parscale/io/safetensors.hpp>

#include "program.hpp"

namespace parscale::test {

using io::Json;
using Words = std::vector<std::string>;

/// A port that is free now, to be the one after MASTER_PORT.
inline int free_port() {
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

/// What a launcher says to a rank that is to meet the others at `port`.
inline Words launched(int rank, int world, int port) {
  const std::string r = std::to_string(rank), w = std::to_string(world);
  return {"RANK=" + r,
          "WORLD_SIZE=" + w,
          "LOCAL_RANK=" + r,
          "LOCAL_WORLD_SIZE=" + w,
          "MASTER_ADDR=127.0.0.1",
          "MASTER_PORT=" + std::to_string(port - 1)};
}

/// One parscale-train a rank. `words_of(rank)` is each one's command line.
class World {
 public:
  World(const Scratch& scratch, int size, const std::function<Words(int rank)>& words_of,
        int port = free_port()) {
    for (int rank = 0; rank < size; ++rank)
      ranks_.push_back(
          std::make_unique<Started>(scratch, "train", words_of(rank), launched(rank, size, port)));
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
inline void train(const Scratch& scratch, int world, const Words& words) {
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
inline Words small_run(const Scratch& scratch, const std::string& output, const Words& more = {}) {
  return tiny_run(scratch, output) +
         Words{"parscale.parscale_n=4", "parscale.parscale_n_tokens=4", "training.global_batch_size=6",
               "training.threads=1", "training.ddp_timeout=60"} +
         more;
}

inline const std::string one_sequence = "training.per_device_train_batch_size=1";
inline const std::string deterministic = "training.deterministic=true";
inline const std::string resume = "training.resume_from_checkpoint=true";

inline std::string weights(const fs::path& folder) { return read_text(folder / "model.safetensors"); }

inline std::vector<double> measured(const fs::path& folder, const char* what) {
  std::vector<double> values;
  std::ifstream file(folder / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const Json object = io::parse_json(line, "metrics");
    if (object.contains(what)) values.push_back(object[what].get<double>());
  }
  return values;
}

/// The largest difference between two models saved in float64.
inline double difference(const fs::path& a, const fs::path& b) {
  const io::SafetensorsFile one(a / "model.safetensors"), other(b / "model.safetensors");
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
inline int last_checkpoint(const fs::path& folder) {
  int last = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("checkpoint-") && name.find_first_not_of("0123456789", 11) == name.npos)
      last = std::max(last, std::stoi(name.substr(11)));
  }
  return last;
}

}  // namespace parscale::test
