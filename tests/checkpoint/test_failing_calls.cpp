// The system refuses one call after the other: disk full, failing disk. And the order of events that makes a
// checkpoint survive a power cut, which a kill cannot show.
#include <catch2/catch_test_macros.hpp>

#include "sample.hpp"
#include "traced_child.hpp"

using namespace sample;
using traced::CallKind;

namespace {

/// Fails the 1st, 2nd, ... call with `error` while checkpoint 1 is being followed by checkpoint `next`.
/// Whatever happens, it ends with success or a StorageError, and one of the two is whole. Returns how many
/// calls failed.
Index fail_every_call(int error, Index next, const std::function<bool(CallKind)>& concerned) {
  for (Index instant = 1;; ++instant) {
    const TemporaryDirectory directory(fast_directory());
    const fs::path& parent = directory.path();
    save(parent, 1);
    Index calls = 0;
    const auto end = traced::run([&] { save(parent, next, {.keep = 1}); },
                                 [&](const traced::Call& call) -> traced::Fate {
                                   const bool fails = concerned(call.kind()) && ++calls == instant;
                                   return {.killed = false, .error = fails ? error : 0};
                                 });
    if (!end || !traced::calls_can_fail) SKIP("calls of a child cannot be made to fail here");
    INFO("call " << instant << " failed with errno " << error);
    REQUIRE_FALSE(end->killed);
    REQUIRE((end->exit_code == 0 || end->exit_code == 4));
    const auto found = good_step(parent);
    REQUIRE((found == 1 || found == next));
    if (end->exit_code == 0) REQUIRE(found == next);
    io::tidy_checkpoints(parent);
    REQUIRE(good_step(parent) == found);
    if (calls < instant) return instant - 1;
  }
}

bool writes(CallKind kind) {
  return kind == CallKind::create || kind == CallKind::write || kind == CallKind::sync ||
         kind == CallKind::rename || kind == CallKind::make_directory;
}

}  // namespace

TEST_CASE("A disk that is full at any call of a save leaves the previous checkpoint or the new one") {
  REQUIRE(fail_every_call(ENOSPC, 2, writes) >= 20);
  REQUIRE(fail_every_call(ENOSPC, 1, writes) >= 20);
}

TEST_CASE("A disk that fails at any call of a save leaves the previous checkpoint or the new one") {
  const auto any = [](CallKind kind) { return kind != CallKind::other; };
  REQUIRE(fail_every_call(EIO, 2, any) >= 40);
  REQUIRE(fail_every_call(EIO, 1, any) >= 40);
}

TEST_CASE("An older checkpoint that cannot be deleted is no reason to stop: the new one is good") {
  const TemporaryDirectory directory(fast_directory());
  save(directory.path(), 1);
  Index failed = 0;
  const auto end = traced::run([&] { save(directory.path(), 2, {.keep = 1}); },
                               [&](const traced::Call& call) -> traced::Fate {
                                 const bool fails = call.kind() == CallKind::remove;
                                 failed += fails ? 1 : 0;
                                 return {.killed = false, .error = fails ? EIO : 0};
                               });
  if (!end || !traced::calls_can_fail) SKIP("calls of a child cannot be made to fail here");
  REQUIRE(failed > 0);
  REQUIRE(end->exit_code == 0);
  REQUIRE(good_step(directory.path()) == 2);
}

TEST_CASE("Calls that a signal interrupts are made again") {
  const TemporaryDirectory directory(fast_directory());
  Index calls = 0;
  const auto end = traced::run([&] { save(directory.path(), 1); },
                               [&](const traced::Call& call) -> traced::Fate {
                                 const bool fails = call.kind() == CallKind::write && ++calls % 2 == 1;
                                 return {.killed = false, .error = fails ? EINTR : 0};
                               });
  if (!end || !traced::calls_can_fail) SKIP("calls of a child cannot be made to fail here");
  REQUIRE(end->exit_code == 0);
  REQUIRE(good_step(directory.path()) == 1);
}

TEST_CASE(
    "Content is synced before the manifest, the manifest before the name, the name before older ones go") {
  const TemporaryDirectory directory;
  save(directory.path(), 1);
  std::vector<std::string> events;
  const auto end = traced::run([&] { save(directory.path(), 2, {.keep = 1}); },
                               [&](const traced::Call& call) -> traced::Fate {
                                 std::string text = call.kind() == CallKind::remove ? "remove" : call.text();
                                 const std::string parent = directory.path().string();
                                 for (auto at = text.find(parent); at != text.npos; at = text.find(parent))
                                   text.replace(at, parent.size() + (at + parent.size() < text.size()), "");
                                 if (!text.empty() && (events.empty() || events.back() != text))
                                   events.push_back(text);
                                 return {};
                               });
  if (!end) SKIP("this system does not let a process trace its child");
  const std::string aside = "checkpoint-2.writing-1";
  REQUIRE(events == std::vector<std::string>{
                        "mkdir " + aside, "create " + aside + "/model.safetensors",
                        "sync " + aside + "/model.safetensors", "create " + aside + "/optimizer.safetensors",
                        "sync " + aside + "/optimizer.safetensors", "create " + aside + "/trainer_state.json",
                        "sync " + aside + "/trainer_state.json", "sync " + aside,
                        "create " + aside + "/manifest.json", "sync " + aside + "/manifest.json",
                        "sync " + aside, "rename " + aside + " checkpoint-2", "sync ",
                        "rename checkpoint-1 checkpoint-1.removing-1", "sync ", "remove"});
}

TEST_CASE("A checkpoint of the same step keeps a valid name until the new one has taken its place, synced") {
  const TemporaryDirectory directory;
  save(directory.path(), 1);
  std::vector<std::string> renames;
  const auto end = traced::run([&] { save(directory.path(), 1); },
                               [&](const traced::Call& call) -> traced::Fate {
                                 if (call.kind() == CallKind::rename) {
                                   const std::string text = call.text();
                                   const auto to = text.substr(text.rfind('/') + 1);
                                   renames.push_back(to);
                                 } else if (!renames.empty() && call.kind() == CallKind::sync) {
                                   renames.push_back("sync");
                                 }
                                 return {};
                               });
  if (!end) SKIP("this system does not let a process trace its child");
  REQUIRE(renames == std::vector<std::string>{"checkpoint-1.replaced-1", "sync", "checkpoint-1", "sync",
                                              "checkpoint-1.removing-1", "sync"});
}
