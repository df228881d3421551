/// Who holds up the run? Judges from what every rank last said about itself, and puts it into words. Lives at
/// the rendezvous, which hears all ranks; LastResort ends a process whose main thread does not hear the
/// alarm.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "activity.hpp"
#include "alarm.hpp"
#include "roster.hpp"

namespace parscale::distributed {

// An activity as texts of a message; its age travels, since clocks differ.
inline std::vector<std::string> to_texts(const Activity::Snapshot& at) {
  const auto age = std::chrono::duration_cast<Milliseconds>(Clock::now() - at.since);
  return {std::to_string(at.joined), at.inside ? "1" : "0", at.operation, std::to_string(age.count()),
          std::to_string(at.step)};
}
/// Throws std::exception when the texts are no activity.
inline Activity::Snapshot read_activity(const std::vector<std::string>& texts) {
  return {.joined = std::stoull(texts.at(0)),
          .inside = texts.at(1) == "1",
          .operation = texts.at(2),
          .since = Clock::now() - Milliseconds(std::stoll(texts.at(3))),
          .step = std::stoll(texts.at(4))};
}

class Watchdog {
 public:
  /// How often ranks speak.
  static Milliseconds interval(Milliseconds timeout) {
    return std::clamp(timeout / 5, Milliseconds(50), Milliseconds(500));
  }

  Watchdog(const Roster& roster, Milliseconds timeout) : timeout_(timeout) {
    for (const Member& member : roster) ranks_.push_back({.member = member});
  }

  void heard(int rank, const Activity::Snapshot& activity) {
    Rank& r = at(rank);
    r.heard = Clock::now();
    r.activity = activity;
  }
  const Activity::Snapshot& activity(int rank) const { return at(rank).activity; }
  /// This rank has ended well; nobody waits for it.
  void left(int rank) { at(rank).watched = false; }

  /// Its connection has broken. What it did is as old as what it said last.
  Explanation died(int rank) const {
    const auto age = std::chrono::duration_cast<Milliseconds>(Clock::now() - at(rank).heard);
    return {
        .what = subject(at(rank).member) + " died or ended early",
        .where = to_string(at(rank).activity) + ", as it said " + std::to_string(age.count()) + " ms before",
        .why = "its connection was closed",
        .remedy = "look at the last lines that it wrote; the run resumes from its last checkpoint"};
  }

  /// What is wrong, if a rank has been silent or others have waited for it longer than the timeout. Call it
  /// every interval: after a longer pause (everything was stopped, say) it counts anew.
  std::optional<Explanation> judge(Clock::time_point now = Clock::now()) {
    if (const auto verdict = judge_silence(now)) return verdict;
    for (const Rank& rank : ranks_)
      if (rank.watched && rank.activity.inside && now - std::max(rank.activity.since, excused_) > timeout_)
        return waiting(now);
    return std::nullopt;
  }

  /// Of that, silence alone.
  std::optional<Explanation> judge_silence(Clock::time_point now = Clock::now()) {
    if (now - std::exchange(judged_, now) > std::max(timeout_ / 2, 3 * interval(timeout_))) excused_ = now;
    for (const Rank& rank : ranks_)
      if (rank.watched && now - std::max(rank.heard, excused_) > timeout_) return silent(rank, now);
    return std::nullopt;
  }

 private:
  struct Rank {
    Member member;
    Clock::time_point heard = Clock::now();
    Activity::Snapshot activity = {};
    bool watched = true;
  };
  const Rank& at(int rank) const { return ranks_[static_cast<std::size_t>(rank)]; }
  Rank& at(int rank) { return ranks_[static_cast<std::size_t>(rank)]; }

  static std::string seconds(Clock::duration time) {
    return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count()) + " s";
  }

  static constexpr const char* remedy =
      "the run resumes from its last checkpoint; training.ddp_timeout sets the patience";

  Explanation silent(const Rank& rank, Clock::time_point now) const {
    return {.what = subject(rank.member) + " hangs",
            .where = to_string(rank.activity),
            .why = "nothing was heard of it for " + seconds(now - rank.heard) +
                   ": it is stopped, or its machine is",
            .remedy = remedy};
  }

  /// Somebody waits in an operation. Whoever has joined the fewest is the one that all wait for.
  Explanation waiting(Clock::time_point now) const {
    const Activity::Snapshot& longest = longest_wait();
    const std::vector<const Rank*> behind = furthest_behind();
    if (behind.empty())
      return {.what = "All ranks hang in the same operation",
              .where = to_string(longest),
              .why = "the network, or the device, has stopped",
              .remedy = remedy};
    std::string names = subject(behind.front()->member), places = to_string(behind.front()->activity);
    for (std::size_t i = 1; i < behind.size(); ++i) {
      names += ", " + to_string(behind[i]->member);
      places += "; " + to_string(behind[i]->activity);
    }
    return {.what = names + (behind.size() == 1 ? " hangs" : " hang"),
            .where = places,
            .why = "the others wait for " + seconds(now - longest.since) + " " + to_string(longest),
            .remedy = remedy};
  }

  /// The activity of the rank that has been inside an operation for the longest time.
  const Activity::Snapshot& longest_wait() const {
    const Rank* longest = nullptr;
    for (const Rank& rank : ranks_)
      if (rank.watched && rank.activity.inside &&
          (longest == nullptr || rank.activity.since < longest->activity.since))
        longest = &rank;
    return longest->activity;
  }
  /// Ranks that have joined fewer operations than others; none when all have joined as many.
  std::vector<const Rank*> furthest_behind() const {
    std::uint64_t fewest = UINT64_MAX, most = 0;
    for (const Rank& rank : ranks_) {
      if (!rank.watched) continue;
      fewest = std::min(fewest, rank.activity.joined);
      most = std::max(most, rank.activity.joined);
    }
    std::vector<const Rank*> behind;
    for (const Rank& rank : ranks_)
      if (rank.watched && fewest < most && rank.activity.joined == fewest) behind.push_back(&rank);
    return behind;
  }

  Milliseconds timeout_;
  std::vector<Rank> ranks_;
  Clock::time_point judged_ = Clock::now();
  Clock::time_point excused_ = {};  ///< time before it does not count
};

/// After the alarm, the main thread has `grace` to unwind; then `end` is called with the alarm's error, in a
/// thread of ours: it prints and ends the process. A main thread that computes or reads hears no alarm.
class LastResort {
 public:
  LastResort(std::shared_ptr<Alarm> alarm, Milliseconds grace, std::function<void(const PeerError&)> end)
      : alarm_(std::move(alarm)),
        thread_([this, grace, end = std::move(end)] { watch(grace, end); }),
        listening_(alarm_->listen([this] { tell(&LastResort::raised_); })) {}
  LastResort(const LastResort&) = delete;
  LastResort& operator=(const LastResort&) = delete;
  ~LastResort() {
    tell(&LastResort::closing_);
    thread_.join();
  }

 private:
  void tell(bool LastResort::*what) {
    const std::lock_guard lock(mutex_);
    this->*what = true;
    changed_.notify_all();
  }
  void watch(Milliseconds grace, const std::function<void(const PeerError&)>& end) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return raised_ || closing_; });
    if (changed_.wait_for(lock, grace, [&] { return closing_; })) return;
    try {
      alarm_->check();
    } catch (const PeerError& error) {
      end(error);
    }
  }

  std::shared_ptr<Alarm> alarm_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool raised_ = false, closing_ = false;
  std::thread thread_;
  Alarm::Listening listening_;
};

}  // namespace parscale::distributed
