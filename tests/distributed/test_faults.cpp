/// Ranks die, stop, leave, fail and get stuck: in every operation, each rank in turn. Whatever happens, all
/// others end in time with exit code 5 and a message that says who, where and at which step.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <list>
#include <parscale/distributed/tcp_communicator.hpp>
#include <parscale/distributed/threads_communicator.hpp>

#include "processes.hpp"
#include "support/thrown.hpp"

using namespace parscale;
using namespace parscale::distributed;
using namespace parscale::test;

namespace {

enum class Fault { killed, stopped, exits, throws, stuck };
constexpr Fault faults[] = {Fault::killed, Fault::stopped, Fault::exits, Fault::throws, Fault::stuck};
constexpr const char* operations[] = {"all_gather", "reduce_scatter", "all_reduce", "broadcast",
                                      "all_to_all", "share",          "split",      "exchange of letters"};
constexpr int world = 4;
constexpr Milliseconds timeout(1500);
constexpr Index step = 17;

/// One operation of that name, as every rank would start it.
void take_part(const std::string& operation, Rendezvous& rendezvous, TcpCommunicator& on) {
  const Partition parts = Partition::even(1 << 18, world);
  std::vector<float> whole(1 << 18), part(static_cast<std::size_t>(parts.stride()));
  const std::string what = "layer 3";
  if (operation == "all_gather")
    on.all_gather(AllGather<float>{part.data(), whole.data(), parts, false, what}).wait();
  if (operation == "reduce_scatter")
    on.reduce_scatter(ReduceScatter<float>{whole.data(), part.data(), parts, false, what}).wait();
  if (operation == "all_reduce") on.all_reduce(AllReduce<float>{whole.data(), parts.total(), what}).wait();
  if (operation == "broadcast") on.broadcast(Broadcast<float>{whole.data(), parts.total(), 0, what}).wait();
  std::vector<float> arrived(whole.size());
  if (operation == "all_to_all")
    on.all_to_all(AllToAll<float>{whole.data(), parts, arrived.data(), parts, what}).wait();
  if (operation == "share") barrier(on);
  if (operation == "split") on.split(0);
  if (operation == "exchange of letters") rendezvous.gather("a", "letters");
}

/// What a program does with these, reduced to the bones: main thread, alarm, last resort.
void run_rank(int rank, int port, const std::string& operation, Fault fault, int victim) {
  const Watch watch{.timeout = timeout};
  Rendezvous rendezvous(launch_of(rank, world, port), watch);
  TcpCommunicator on{TcpTransport(rendezvous)};
  on.activity().step(step);
  barrier(on);
  if (rank != victim) {
    for (int i = 0; i < 10; ++i) take_part(operation, rendezvous, on);
    return;
  }
  take_part(operation, rendezvous, on);
  std::this_thread::sleep_for(Milliseconds(20));
  // Half of the faults strike while the operation runs, half just before it.
  std::thread during([&] {
    if (victim % 2 == 0) take_part(operation, rendezvous, on);
  });
  if (fault == Fault::killed) ::raise(SIGKILL);
  if (fault == Fault::stopped) ::raise(SIGSTOP);
  if (fault == Fault::exits) ::_exit(0);
  during.join();
  if (fault == Fault::throws)
    throw NumericError({.what = "The loss is not a finite number", .where = "step 17"});
  std::this_thread::sleep_for(std::chrono::seconds(20));
}

void check_others(const std::vector<Ended>& ended, int victim, pid_t process, const std::string& operation) {
  for (int rank = 0; rank < world; ++rank) {
    if (rank == victim) continue;
    const Ended& its = ended[static_cast<std::size_t>(rank)];
    INFO("rank " << rank << " of a run in which rank " << victim << " failed in " << operation << ": "
                 << its.text);
    CHECK(its.code == 5);
    CHECK(its.text.find("Rank " + std::to_string(victim) + " (process " + std::to_string(process)) == 0);
    // A split begins with the sharing of colours.
    CHECK((contains(its.text, operation) || (operation == "split" && contains(its.text, "share"))));
    CHECK(contains(its.text, "step 17"));
    CHECK(its.after < 1.5 + 5);
  }
}

/// One run of `world` processes, one of which fails.
struct Run {
  Run(const std::string& in, Fault fault, int who) : operation(in), victim(who) {
    const int port = free_port();
    for (int rank = 0; rank < world; ++rank)
      ranks.emplace_back([=, this] { run_rank(rank, port, operation, fault, victim); });
  }
  void check() {
    const pid_t process = ranks[static_cast<std::size_t>(victim)].process();
    std::vector<Ended> ended(world);
    for (int rank = 0; rank < world; ++rank)
      if (rank != victim)
        ended[static_cast<std::size_t>(rank)] = ranks[static_cast<std::size_t>(rank)].wait();
    check_others(ended, victim, process, operation);
  }

  std::string operation;
  int victim;
  std::vector<Child> ranks;
};

}  // namespace

TEST_CASE("A rank that fails ends the others, who say which, where and at which step", "[distributed]") {
  const Fault fault = faults[GENERATE(range(0, 5))];
  const int first = GENERATE(0, 4);
  std::list<Run> runs;  // side by side: they mostly wait
  for (int i = first; i < first + 4; ++i)
    for (int victim = 0; victim < world; ++victim) runs.emplace_back(operations[i], fault, victim);
  for (Run& run : runs) run.check();
}

TEST_CASE("A main thread that hears no alarm is ended by the last resort", "[distributed]") {
  const int port = free_port();
  std::vector<Child> ranks;
  for (int rank = 0; rank < 3; ++rank)
    ranks.emplace_back([=] {
      const Watch watch{};
      const LastResort last_resort(watch.alarm, Milliseconds(200), [](const PeerError& error) {
        ::_exit(contains(error.what(), "Rank 1 (process ") ? error.exit_code() : 98);
      });
      Rendezvous rendezvous(launch_of(rank, 3, port), watch);
      rendezvous.gather("", "letters");
      if (rank == 1) ::raise(SIGKILL);
      std::this_thread::sleep_for(std::chrono::seconds(20));  // a long computation
    });
  for (const std::size_t rank : {0U, 2U}) {
    const Ended its = ranks[rank].wait();
    CHECK((its.code == 5 && its.after < 5));
  }
}

TEST_CASE("A thread that fails in any operation ends the others", "[distributed]") {
  for (int victim = 0; victim < 4; ++victim)
    for (int operation = 0; operation < 3; ++operation) {
      std::atomic<int> told = 0;
      const auto work = [&](ThreadsCommunicator& on) {
        for (int i = 0;; ++i) {
          if (on.rank() == victim && i == 3) throw NumericError({.what = "its own failure"});
          try {
            double one = 1;
            if (operation == 0) barrier(on);
            if (operation == 1) on.broadcast(Broadcast<double>{&one, 1, victim}).wait();
            if (operation == 2) on.all_reduce(AllReduce<double>{&one, 1}).wait();
          } catch (const PeerError& error) {
            told += contains(error.what(), "Rank " + std::to_string(victim)) ? 1 : 0;
            throw;
          }
        }
      };
      CHECK_THROWS_AS(run_ranks(4, work), NumericError);
      CHECK(told >= 1);
    }
}
