/// Every operation, on every body, over worlds of 1 to 8 ranks.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <parscale/distributed/tcp_communicator.hpp>
#include <parscale/distributed/threads_communicator.hpp>

#include "every_operation.hpp"
#include "processes.hpp"

using namespace parscale;
using namespace parscale::distributed;
using namespace parscale::test;

TEST_CASE("Every operation among threads gives the plain computation's bits", "[distributed]") {
  const int world = GENERATE(range(1, 9));
  REQUIRE_NOTHROW(run_ranks(world, [](ThreadsCommunicator& on) { EveryOperation(on).check(); }));
}

TEST_CASE("Every operation among processes over TCP gives the plain computation's bits", "[distributed]") {
  const int world = GENERATE(range(1, 9));
  const int port = free_port();
  const auto ended = run_children(world, [&](int rank) {
    Rendezvous rendezvous(launch_of(rank, world, port));
    TcpCommunicator on{TcpTransport(rendezvous)};
    EveryOperation(on).check();
  });
  for (const Ended& rank : ended) {
    INFO(rank.text);
    CHECK(rank.code == 0);
  }
}

TEST_CASE("Ranks on IPv6 and behind a host name meet as well", "[distributed]") {
  const std::string address = GENERATE(as<std::string>{}, "::1", "localhost");
  if (resolve(address, 1).empty()) SKIP("this machine has no " + address);
  const int port = free_port();
  const auto ended = run_children(3, [&](int rank) {
    Launch launch = launch_of(rank, 3, port);
    launch.master_address = address;
    Rendezvous rendezvous(launch);
    TcpCommunicator on{TcpTransport(rendezvous)};
    barrier(on);
  });
  for (const Ended& rank : ended) CHECK((rank.text.empty() && rank.code == 0));
}

TEST_CASE("A rank that means another operation is told so", "[distributed]") {
  const auto different_counts = [](auto& on) {
    std::vector<float> values(static_cast<std::size_t>(10 + on.rank()));
    on.broadcast(Broadcast<float>{.values = values.data(), .count = 10 + on.rank()}).wait();
  };
  REQUIRE_THROWS_AS(run_ranks(3, different_counts), PeerError);
  const int port = free_port();
  const auto ended = run_children(2, [&](int rank) {
    Rendezvous rendezvous(launch_of(rank, 2, port));
    TcpCommunicator on{TcpTransport(rendezvous)};
    different_counts(on);
  });
  CHECK(ended[1].code == 5);
  CHECK(ended[1].text.find("40 bytes where 44 are expected") != std::string::npos);
}

TEST_CASE("A thread that leaves or comes late ends the others' waiting", "[distributed]") {
  REQUIRE_THROWS_AS(run_ranks(3,
                              [](ThreadsCommunicator& on) {
                                if (on.rank() != 1) barrier(on);
                              }),
                    PeerError);
  const Watch impatient{.timeout = std::chrono::milliseconds(50)};
  REQUIRE_THROWS_AS(run_ranks(
                        3,
                        [](ThreadsCommunicator& on) {
                          if (on.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(200));
                          barrier(on);
                        },
                        impatient),
                    PeerError);
}
