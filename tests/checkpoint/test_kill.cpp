// A kill at any instant costs nothing but the steps since the last checkpoint. The instants are not sampled:
// the child is killed before every single system call that it makes, in every situation of a checkpoint's
// life.
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <random>

#include "sample.hpp"
#include "traced_child.hpp"

using namespace sample;
using traced::CallKind;

namespace {

/// One situation: what lies there before, what the child does, and which checkpoints may be the newest after.
struct Situation {
  std::function<void(const fs::path&)> before;
  std::function<void(const fs::path&)> work;
  std::set<std::optional<Index>> allowed;
  std::ptrdiff_t damaged = 0;  ///< checkpoints that are damaged from the start
  fs::path output = {};        ///< where the checkpoints lie, below the test's own directory
};

bool changes_files(CallKind kind) {
  return kind != CallKind::other && kind != CallKind::read && kind != CallKind::open &&
         kind != CallKind::close;
}

bool anything_unfinished(const fs::path& parent) {
  if (!fs::exists(parent)) return false;
  const auto names = names_in(parent);
  return std::any_of(names.begin(), names.end(),
                     [](const std::string& name) { return name.find('.') != std::string::npos; });
}

std::ptrdiff_t count_damaged(const fs::path& parent) {
  const auto found = io::find_checkpoints(parent);
  return std::count_if(found.begin(), found.end(), [](const io::FoundCheckpoint& checkpoint) {
    return !io::verify_checkpoint(checkpoint.path).good();
  });
}

/// Whatever the kill left: the newest good checkpoint is an allowed one, now and after tidying up; nothing
/// half-written or half-deleted ever has a valid name; nothing unfinished stays; the run can go on and save.
void require_good(const fs::path& parent, const Situation& situation, Index instant) {
  INFO("killed before file system call " << instant);
  const auto found = good_step(parent);
  REQUIRE(situation.allowed.count(found) == 1);
  REQUIRE(count_damaged(parent) <= situation.damaged);
  io::tidy_checkpoints(parent);
  REQUIRE(good_step(parent) == found);
  REQUIRE_FALSE(anything_unfinished(parent));
  save(parent, 1000, {.keep = 1});
  REQUIRE(good_step(parent) == 1000);
}

/// Kills the child before its 1st, 2nd, ... call that changes files, until it gets through. Returns how many
/// instants there were; nothing when tracing is impossible here.
std::optional<Index> kill_at_every_instant(const Situation& situation) {
  for (Index instant = 1;; ++instant) {
    const TemporaryDirectory directory(fast_directory());
    const fs::path output = directory.path() / situation.output;
    situation.before(output);
    Index calls = 0;
    const auto end = traced::run([&] { situation.work(output); },
                                 [&](const traced::Call& call) -> traced::Fate {
                                   return {.killed = changes_files(call.kind()) && ++calls == instant};
                                 });
    if (!end) return {};
    require_good(output, situation, instant);
    if (end->killed) continue;
    REQUIRE(end->exit_code == 0);
    return instant - 1;
  }
}

void require_instants(const Situation& situation, Index at_least) {
  const auto instants = kill_at_every_instant(situation);
  if (!instants) SKIP("this system does not let a process trace its child");
  CAPTURE(*instants);
  REQUIRE(*instants >= at_least);
}

}  // namespace

TEST_CASE("A kill at any instant of the first save leaves nothing or the new checkpoint") {
  require_instants({.before = [](const fs::path&) {},
                    .work = [](const fs::path& parent) { save(parent, 1); },
                    .allowed = {std::nullopt, 1}},
                   15);
}

TEST_CASE(
    "A kill at any instant of a save into a new output directory leaves nothing or the new checkpoint") {
  require_instants({.before = [](const fs::path&) {},
                    .work = [](const fs::path& parent) { save(parent, 1); },
                    .allowed = {std::nullopt, 1},
                    .output = "new/output"},
                   20);
}

TEST_CASE("A kill at any instant of a save that drops the older checkpoint leaves one of them") {
  require_instants({.before = [](const fs::path& parent) { save(parent, 1); },
                    .work = [](const fs::path& parent) { save(parent, 2, {.keep = 1}); },
                    .allowed = {1, 2}},
                   25);
}

TEST_CASE("A kill at any instant of a save with a limit of two leaves the previous or the new checkpoint") {
  require_instants({.before =
                        [](const fs::path& parent) {
                          for (Index step : {1, 2, 3}) save(parent, step);
                        },
                    .work = [](const fs::path& parent) { save(parent, 4, {.keep = 2}); },
                    .allowed = {3, 4}},
                   30);
}

TEST_CASE("A kill at any instant of a save over the only checkpoint, of the same step, leaves that step") {
  require_instants({.before = [](const fs::path& parent) { save(parent, 7); },
                    .work = [](const fs::path& parent) { save(parent, 7, {.keep = 1}); },
                    .allowed = {7}},
                   25);
}

TEST_CASE(
    "A kill at any instant of a save over a damaged checkpoint leaves the older good one or the new one") {
  require_instants({.before =
                        [](const fs::path& parent) {
                          save(parent, 6);
                          flip_bit(save(parent, 7) / "model.safetensors", 1000, 3);
                        },
                    .work = [](const fs::path& parent) { save(parent, 7, {.keep = 1}); },
                    .allowed = {6, 7},
                    .damaged = 1},
                   30);
}

TEST_CASE("A kill at any instant of a rolling save leaves the previous or the new rolling checkpoint") {
  require_instants({.before =
                        [](const fs::path& parent) {
                          save(parent, 1);
                          save(parent, 5, {.rolling = true});
                        },
                    .work = [](const fs::path& parent) { save(parent, 8, {.rolling = true}); },
                    .allowed = {5, 8}},
                   25);
}

TEST_CASE("A kill at any instant of removing the rolling checkpoint leaves the regular one") {
  require_instants({.before =
                        [](const fs::path& parent) {
                          save(parent, 5, {.rolling = true});
                          save(parent, 6);
                        },
                    .work = [](const fs::path& parent) { io::remove_rolling_checkpoints(parent); },
                    .allowed = {6}},
                   5);
}

TEST_CASE("A kill at any instant of tidying up after a kill loses nothing") {
  const auto copy = [](const fs::path& from, const fs::path& to) {
    fs::copy(from, to, fs::copy_options::recursive);
  };
  require_instants({.before =
                        [copy](const fs::path& parent) {
                          const auto whole = save(parent, 3);
                          copy(whole, parent / "checkpoint-2.removing-1");
                          copy(whole, parent / "checkpoint-3.replaced-1");
                          copy(whole, parent / "checkpoint-4.writing-1");
                          fs::remove(parent / "checkpoint-4.writing-1" / "manifest.json");
                          fs::rename(save(parent, 5), parent / "checkpoint-5.replaced-1");
                        },
                    .work = [](const fs::path& parent) { io::tidy_checkpoints(parent); },
                    .allowed = {5}},
                   15);
}

TEST_CASE("A kill at random moments of a run that saves all the time never loses a finished checkpoint") {
  auto* saved = static_cast<std::atomic<Index>*>(
      ::mmap(nullptr, sizeof(std::atomic<Index>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const TemporaryDirectory directory;
  std::mt19937 random(1);
  for (int kill = 1; kill <= 100; ++kill) {
    const Index start = good_step(directory.path()).value_or(0);
    *saved = start;
    const pid_t child = ::fork();
    if (child == 0)
      ::_exit(traced::exit_code_of([&] {
        io::tidy_checkpoints(directory.path());
        for (Index step = start + 1;; *saved = step++) save(directory.path(), step, {.keep = 1});
      }));
    const timespec pause{0, static_cast<long>(random() % 30'000'000)};
    ::nanosleep(&pause, nullptr);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const Index found = good_step(directory.path()).value_or(0);
    INFO("kill " << kill << ", " << *saved << " was finished");
    REQUIRE(found >= *saved);
    REQUIRE(found <= *saved + 1);
  }
  ::munmap(saved, sizeof(std::atomic<Index>));
}
