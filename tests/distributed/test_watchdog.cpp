/// The parts that stand watch, one by one: alarm, work queue, activity, and whom the watchdog names.
#include <catch2/catch_test_macros.hpp>

#include <parscale/distributed/watchdog.hpp>
#include <parscale/distributed/work_queue.hpp>

#include "support/thrown.hpp"

using namespace parscale;
using namespace parscale::distributed;
using namespace parscale::test;

TEST_CASE("An alarm keeps its first cause and wakes its listeners once", "[distributed]") {
  Alarm alarm;
  int heard = 0;
  const auto listening = alarm.listen([&] { ++heard; });
  {
    const auto gone = alarm.listen([&] { heard += 100; });
  }
  CHECK_NOTHROW(alarm.check());
  CHECK_FALSE(alarm.wait_for(std::chrono::milliseconds(1)));
  alarm.raise({.what = "the first"});
  alarm.raise({.what = "the second"});
  CHECK((alarm.raised() && heard == 1 && alarm.wait_for(std::chrono::seconds(0))));
  CHECK(contains(thrown<PeerError>([&] { alarm.check(); }), "the first"));
  const auto late = alarm.listen([&] { ++heard; });
  CHECK(heard == 2);
}

TEST_CASE("Work runs in order; after a failure none is done", "[distributed]") {
  std::string done;
  WorkQueue queue;
  auto a = queue.start([&] { done += 'a'; });
  auto b = queue.start([&] { done += 'b'; });
  b.wait();
  CHECK(done == "ab");
  a.wait();
  a.wait();  // nothing more
  auto bad = queue.start([] { throw NumericError({.what = "bad"}); });
  auto after = queue.start([&] { done += 'c'; });
  CHECK_THROWS_AS(after.wait(), NumericError);
  CHECK_THROWS_AS(bad.wait(), NumericError);
  CHECK(done == "ab");
  {
    auto dropped = queue.start([] {});
  }
}

namespace {

const Roster three{{0, 0, 3, "a", 10}, {1, 1, 3, "a", 11}, {2, 2, 3, "b", 12}};

Activity::Snapshot doing(std::uint64_t joined, bool inside, Clock::time_point since) {
  return {joined, inside, "all_gather of layer " + std::to_string(joined), since, 5};
}

}  // namespace

TEST_CASE("The watchdog names the silent, then those whom others wait for", "[distributed]") {
  const auto start = Clock::now();
  const auto at = [&](int seconds) { return start + std::chrono::seconds(seconds); };
  Watchdog watchdog(three, std::chrono::seconds(10));
  for (const int rank : {0, 1, 2}) watchdog.heard(rank, doing(7, rank != 2, start));
  for (int s = 1; s <= 9; ++s) CHECK_FALSE(watchdog.judge(at(s)));

  SECTION("all are silent, which a pause of the whole machine excuses") {
    CHECK_FALSE(watchdog.judge(at(60)));
    CHECK_FALSE(watchdog.judge_silence(at(63)));
  }
  SECTION("one is silent") {
    watchdog.heard(0, doing(7, false, start));
    watchdog.heard(2, doing(7, false, start));
    Watchdog later = watchdog;  // time cannot be set for heard(), so only rank 1's silence is old
    const auto verdict = later.judge_silence(at(12));
    REQUIRE(verdict);
    CHECK(verdict->what == "Rank 0 (process 10 on a) hangs");
    CHECK(verdict->where == "after all_gather of layer 7, step 5");
  }
}

TEST_CASE("Whoever has joined the fewest operations is waited for", "[distributed]") {
  const auto past = Clock::now() - std::chrono::seconds(20);
  Watchdog watchdog(three, std::chrono::seconds(10));
  watchdog.heard(0, doing(8, true, past));
  watchdog.heard(1, doing(8, true, past));
  SECTION("one") {
    watchdog.heard(2, doing(7, false, past));
    const auto verdict = watchdog.judge();
    REQUIRE(verdict);
    CHECK(verdict->what == "Rank 2 (process 12 on b) hangs");
    CHECK(verdict->where == "after all_gather of layer 7, step 5");
    CHECK(contains(verdict->why, "the others wait for 20 s in all_gather of layer 8, step 5"));
  }
  SECTION("nobody: all are in the same") {
    watchdog.heard(2, doing(8, true, past));
    const auto verdict = watchdog.judge();
    REQUIRE(verdict);
    CHECK(verdict->what == "All ranks hang in the same operation");
  }
  SECTION("one that has left is not") {
    watchdog.heard(2, doing(7, false, past));
    watchdog.left(2);
    watchdog.heard(1, doing(7, false, past));
    CHECK(watchdog.judge()->what == "Rank 1 (process 11 on a) hangs");
  }
}
