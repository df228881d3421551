/// Ranks fail while they train a model and save it: at every place of a step, each rank in turn. Whatever
/// happens, all others end in time and say who it was, and the run goes on from its last checkpoint to the
/// same bits.
#include <catch2/catch_test_macros.hpp>

#include <list>
#include <memory>
#include <parscale/distributed/tcp_communicator.hpp>

#include "../support/thrown.hpp"
#include "failing_training.hpp"
#include "processes.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

constexpr int world = 3;
constexpr Milliseconds timeout(2000);

/// The run that nothing happens to: what it leaves, and the places that it comes by.
struct Undisturbed {
  explicit Undisturbed(const SharedRun& r) : run(r), names(train_on_threads(world, run, folder.path)) {}
  SharedRun run;
  Folder folder{"undisturbed"};
  std::vector<std::string> names;
};

struct Case {
  Fault fault;
  Index place;
  int victim;
  std::string text(const Undisturbed& all) const {
    return "fault " + std::to_string(static_cast<int>(fault)) + " of rank " + std::to_string(victim) +
           " at place " + std::to_string(place) + ", " + all.names[static_cast<std::size_t>(place)];
  }
};

/// What a program does with these, reduced to the bones.
void run_rank(int rank, int port, const SharedRun& run, const std::filesystem::path& folder, const Case& c) {
  const Watch watch{.timeout = timeout};
  Rendezvous rendezvous(launch_of(rank, world, port), watch);
  TcpCommunicator on{TcpTransport(rendezvous)};
  distributed::GroupOf group(on);
  Places places(rank == c.victim ? c.place : -1, [&] { suffer(c.fault); });
  try {
    train_and_save(run, group, folder, places);
  } catch (const Error& error) {  // told before anything is taken down
    if (!watch.alarm->raised()) rendezvous.fail(error.explanation());
    throw;
  }
}

/// A run of processes that one of them fails.
class DisturbedRun {
 public:
  DisturbedRun(const Undisturbed& all, const Case& what)
      : all_(all), case_(what), folder_(std::make_unique<Folder>("disturbed-" + std::to_string(++count))) {
    const int port = free_port();
    for (int rank = 0; rank < world; ++rank)
      ranks_.emplace_back([&, rank, port] { run_rank(rank, port, all_.run, folder_->path, case_); });
  }
  void check() {
    INFO(case_.text(all_));
    const std::string name = "Rank " + std::to_string(case_.victim) + " (process " +
                             std::to_string(ranks_[static_cast<std::size_t>(case_.victim)].process());
    for (int rank = 0; rank < world; ++rank) {
      if (rank == case_.victim) continue;
      const Ended its = ranks_[static_cast<std::size_t>(rank)].wait();
      INFO("rank " << rank << ": " << its.text);
      CHECK(its.after < 2 + 5 + 3);
      CHECK(contains(its.text, "step "));
      if (case_.fault ==
          Fault::throws) {  // others may hear it in the save itself, or of one who heard it first
        CHECK((its.code == 5 || its.code == 4));
        CHECK(contains(its.text, "ank " + std::to_string(case_.victim)));
        continue;
      }
      CHECK(its.code == 5);
      CHECK(its.text.find(name) == 0);
    }
    ranks_.clear();  // kills one that is stopped
    train_on_threads(world, all_.run, folder_->path);
    CHECK(same_end(all_.run, all_.folder.path, folder_->path));
  }

 private:
  static inline int count = 0;
  const Undisturbed& all_;
  Case case_;
  std::unique_ptr<Folder> folder_;
  std::vector<Child> ranks_;
};

/// Several at a time: they mostly wait.
void check_all(const Undisturbed& all, const std::vector<Case>& cases) {
  constexpr std::size_t at_a_time = 8;
  for (std::size_t first = 0; first < cases.size(); first += at_a_time) {
    std::list<DisturbedRun> runs;
    for (std::size_t i = first; i < std::min(first + at_a_time, cases.size()); ++i)
      runs.emplace_back(all, cases[i]);
    for (DisturbedRun& run : runs) run.check();
  }
}

Index places(const Undisturbed& all) { return static_cast<Index>(all.names.size()); }

}  // namespace

TEST_CASE("Wherever a process dies in training or saving, the others say so, and the run goes on",
          "[distributed]") {
  const Undisturbed all(faulty_run());
  std::vector<Case> cases;
  for (Index place = 0; place < places(all); ++place) {
    for (int victim = 0; victim < world; ++victim) cases.push_back({Fault::killed, place, victim});
    cases.push_back({Fault::exits, place, static_cast<int>(place % world)});
  }
  for (Index place = 0; place < places(all); ++place)
    cases.push_back({Fault::stopped, place, static_cast<int>((place + 1) % world)});
  REQUIRE(cases.size() >= 100);
  check_all(all, cases);
}

TEST_CASE("Every fault at every place of each rank, in every way to share", "[distributed][.long]") {
  for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none}) {
    SharedRun run = faulty_run();
    run.sharding = sharding;
    const Undisturbed all(run);
    std::vector<Case> cases;
    for (const Fault fault : {Fault::killed, Fault::stopped, Fault::exits, Fault::throws, Fault::stuck})
      for (Index place = 0; place < places(all); ++place)
        for (int victim = 0; victim < world; ++victim) cases.push_back({fault, place, victim});
    check_all(all, cases);
  }
}

TEST_CASE("Wherever a thread fails or is stuck in training or saving, the others name it", "[distributed]") {
  const Undisturbed all(faulty_run());
  const auto disturb = [&](const Case& c) {
    INFO(c.text(all));
    const Folder folder("disturbed");
    std::atomic<int> told = 0;
    const auto work = [&](distributed::ThreadsCommunicator& on) {
      distributed::GroupOf group(on);
      Places at(on.rank() == c.victim ? c.place : -1,
                [&] { suffer(c.fault, std::chrono::milliseconds(250)); });
      try {
        train_and_save(all.run, group, folder.path, at);
      } catch (const Error& error) {  // in the save, all of them hear what the one could not do
        if (on.rank() != c.victim && contains(error.what(), "ank " + std::to_string(c.victim))) ++told;
        throw;
      }
    };
    CHECK_THROWS_AS(distributed::run_ranks(world, work, {.timeout = std::chrono::milliseconds(150)}), Error);
    CHECK(told >= 1);  // the rest may hear of those first who heard of it
    train_on_threads(world, all.run, folder.path);
    CHECK(same_end(all.run, all.folder.path, folder.path));
  };
  for (Index place = 0; place < places(all); ++place) {
    for (int victim = 0; victim < world; ++victim) disturb({Fault::throws, place, victim});
    disturb({Fault::stuck, place, static_cast<int>(place % world)});
  }
}
