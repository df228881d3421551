/// How ranks find each other, and what they say when they do not.
#include <catch2/catch_test_macros.hpp>

#include <parscale/distributed/agreement.hpp>

#include "processes.hpp"
#include "support/thrown.hpp"

using namespace parscale;
using namespace parscale::distributed;
using namespace parscale::test;

namespace {

constexpr RendezvousOptions hasty{.join_timeout = Milliseconds(1000), .foreign_timeout = Milliseconds(300)};

void check(const Ended& rank, int code, const std::string& words) {
  INFO(rank.text);
  CHECK(rank.code == code);
  CHECK(contains(rank.text, words));
}

}  // namespace

TEST_CASE("Texts of all ranks arrive in rank order, long ones too", "[distributed]") {
  const int port = free_port();
  const auto ended = run_children(5, [&](int rank) {
    Rendezvous rendezvous(launch_of(rank, 5, port));
    for (const std::size_t length : {0U, 10U, 3000000U}) {
      const auto texts = rendezvous.gather(std::string(length, static_cast<char>('a' + rank)), "letters");
      for (int r = 0; r < 5; ++r)
        if (texts.at(static_cast<std::size_t>(r)) != std::string(length, static_cast<char>('a' + r)))
          throw std::runtime_error("wrong text");
    }
  });
  for (const Ended& rank : ended) check(rank, 0, "");
}

TEST_CASE("One rank needs no port", "[distributed]") {
  Rendezvous rendezvous(Launch{});
  CHECK(rendezvous.gather("mine", "a text") == std::vector<std::string>{"mine"});
  CHECK_NOTHROW(check_agreement(rendezvous, {{"version", "1"}}));
}

TEST_CASE("A late rank is awaited; rank 0 may be the late one", "[distributed]") {
  for (const int late : {0, 2}) {
    const int port = free_port();
    const auto ended = run_children(3, [&](int rank) {
      if (rank == late) std::this_thread::sleep_for(Milliseconds(400));
      Rendezvous rendezvous(launch_of(rank, 3, port), {}, hasty);
    });
    for (const Ended& rank : ended) check(rank, 0, "");
  }
}

TEST_CASE("Missing ranks are named with their host, by every rank that waits", "[distributed]") {
  const int port = free_port();
  const auto ended = run_children(4, [&](int rank) {
    if (rank == 1 || rank == 2) return;
    Rendezvous rendezvous(launch_of(rank, 4, port), {}, hasty);
  });
  for (const std::size_t rank : {0U, 3U}) {
    check(ended[rank], 5, "Ranks are missing: 1-2 of 4");
    check(ended[rank], 5, "rank 1 on " + host_name() + ", rank 2 on " + host_name());
  }
}

TEST_CASE("Without rank 0, or at a wrong port, the message says where it was sought", "[distributed]") {
  const int port = free_port();
  const auto ended = run_children(1, [&](int) { Rendezvous rendezvous(launch_of(1, 2, port), {}, hasty); });
  check(ended[0], 5, "Rank 0 did not answer");
  check(ended[0], 5, "127.0.0.1 port " + std::to_string(port));
  check(ended[0], 5, "Connection refused");
}

TEST_CASE("An unknown host name is said", "[distributed]") {
  Launch launch = launch_of(1, 2, 20000);
  launch.master_address = "no-such-host.invalid";
  const auto ended = run_children(1, [&](int) { Rendezvous rendezvous(launch, {}, hasty); });
  check(ended[0], 5, "the name no-such-host.invalid is unknown");
  launch.master_address = "";
  CHECK_THROWS_AS(Rendezvous(launch), ConfigurationError);
}

TEST_CASE("Something else at the port is no rendezvous", "[distributed]") {
  const Socket listener = listen_at(resolve("127.0.0.1", 0).front());
  Child rank([&] { Rendezvous rendezvous(launch_of(1, 2, own_address(listener).port()), {}, hasty); });
  std::vector<Socket> visitors;
  for (int i = 0; i < 100; ++i) {
    Socket visitor = accept_from(listener);
    const std::string_view words = "HTTP/1.1 400 Bad Request\r\n";
    if (visitor.is_open()) ::send(visitor.get(), words.data(), words.size(), MSG_NOSIGNAL);
    if (visitor.is_open()) visitors.push_back(std::move(visitor));
    std::this_thread::sleep_for(Milliseconds(10));
  }
  check(rank.wait(), 5, "no rendezvous of parscale");
}

TEST_CASE("A stranger at the door disturbs nobody", "[distributed]") {
  const int port = free_port();
  Child first([&] { Rendezvous rendezvous(launch_of(0, 2, port)); });
  Socket stranger;
  while (!stranger.is_open())
    stranger = connect_to(resolve("127.0.0.1", port).front(), Clock::now() + std::chrono::seconds(1));
  const std::string noise(100000, '\xff');
  ::send(stranger.get(), noise.data(), noise.size(), MSG_NOSIGNAL);
  const Socket mute = connect_to(resolve("127.0.0.1", port).front(), Clock::now() + std::chrono::seconds(1));
  Child second([&] { Rendezvous rendezvous(launch_of(1, 2, port)); });
  check(first.wait(), 0, "");
  check(second.wait(), 0, "");
}

TEST_CASE("Two jobs on one port: the second is told whose it is, the first goes on", "[distributed]") {
  const int port = free_port();
  std::vector<Child> first, second;
  for (int rank = 0; rank < 2; ++rank)
    first.emplace_back([&, rank] {
      Rendezvous rendezvous(launch_of(rank, 2, port, "job A"));
      std::this_thread::sleep_for(Milliseconds(1200));
      rendezvous.gather("", "the end");
    });
  std::this_thread::sleep_for(Milliseconds(200));
  for (int rank = 0; rank < 2; ++rank)
    second.emplace_back([&, rank] { Rendezvous rendezvous(launch_of(rank, 2, port, "job B"), {}, hasty); });
  check(second[0].wait(), 5, "The port of the rendezvous cannot be opened");
  check(second[1].wait(), 5,
        "process " + std::to_string(first[0].process()) + " on " + host_name() +
            " refused: this port belongs to run \"job A\", not to \"job B\"");
  for (Child& rank : first) check(rank.wait(), 0, "");
}

TEST_CASE("A second job waits for a port that becomes free, as after a restart", "[distributed]") {
  const int port = free_port();
  Child old([&] {
    Rendezvous rendezvous(launch_of(0, 2, port, "before"), {}, {.join_timeout = Milliseconds(300)});
  });
  std::this_thread::sleep_for(Milliseconds(50));
  const auto ended = run_children(2, [&](int rank) {
    Rendezvous rendezvous(launch_of(rank, 2, port, "after"), {},
                          {.foreign_timeout = std::chrono::seconds(5)});
  });
  for (const Ended& rank : ended) check(rank, 0, "");
  check(old.wait(), 5, "missing: 1 of 2");
}

TEST_CASE("Two processes that claim one rank, or another world size, are told", "[distributed]") {
  const int port = free_port();
  Child first([&] { Rendezvous rendezvous(launch_of(0, 3, port), {}, hasty); });
  std::this_thread::sleep_for(Milliseconds(100));
  Child one([&] { Rendezvous rendezvous(launch_of(1, 3, port), {}, hasty); });
  std::this_thread::sleep_for(Milliseconds(100));
  Child twin([&] { Rendezvous rendezvous(launch_of(1, 3, port), {}, hasty); });
  Child other([&] { Rendezvous rendezvous(launch_of(2, 4, port), {}, hasty); });
  check(twin.wait(), 5, "its place is taken by rank 1 (process " + std::to_string(one.process()));
  check(other.wait(), 5, "this run has 3 ranks, not 4");
  const Ended ended = first.wait();
  check(ended, 5, "Ranks are missing: 2 of 3");
  check(ended, 5, "was refused: this run has 3 ranks, not 4");
  check(one.wait(), 5, "Ranks are missing: 2 of 3");
}

TEST_CASE("What differs between ranks is named on all of them", "[distributed]") {
  const int port = free_port();
  const auto ended = run_children(3, [&](int rank) {
    Rendezvous rendezvous(launch_of(rank, 3, port));
    check_agreement(rendezvous, {{"version", "0.1"}, {"training.seed", "42"}, {"data", "1f"}});
    check_agreement(rendezvous, {{"version", "0.1"},
                                 {"training.learning_rate", rank == 2 ? "0.001" : "0.0003"},
                                 {"data", rank == 1 ? "2e" : "1f"}});
  });
  for (const Ended& rank : ended) {
    check(rank, 5, "The ranks do not agree on training.learning_rate, data");
    check(rank, 5, "training.learning_rate: rank 0 has 0.0003; rank 2 (process ");
    check(rank, 5, "has 0.001; data: rank 0 has 1f; rank 1 (process ");
  }
}
