/// What this process is doing, for whoever has to explain why it does not go on: the operation that it has
/// joined, how many it has joined before, and at which step. Written by communicators and the trainer, read
/// by the watchdog.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>

#include "../core/tensor.hpp"

namespace parscale::distributed {

class Activity {
 public:
  using Clock = std::chrono::steady_clock;

  struct Snapshot {
    std::uint64_t joined = 0;                ///< operations begun so far
    bool inside = false;                     ///< whether the last of them has not ended
    std::string operation;                   ///< its name
    Clock::time_point since = Clock::now();  ///< when it began or, if it has ended, when it ended
    Index step = 0;                          ///< the training step; 0 before the first
  };

  void begin(std::string operation) {
    const std::lock_guard lock(mutex_);
    now_.operation = std::move(operation);
    now_.inside = true;
    ++now_.joined;
    now_.since = Clock::now();
  }
  void end() {
    const std::lock_guard lock(mutex_);
    now_.inside = false;
    now_.since = Clock::now();
  }
  /// Where operations queue on a device: the one before this has ended, so that this one's time begins.
  void go_on(std::string operation) {
    const std::lock_guard lock(mutex_);
    now_.operation = std::move(operation);
    now_.since = Clock::now();
  }
  void step(Index step) {
    const std::lock_guard lock(mutex_);
    now_.step = step;
  }
  Snapshot snapshot() const {
    const std::lock_guard lock(mutex_);
    return now_;
  }

 private:
  mutable std::mutex mutex_;
  Snapshot now_;
};

/// "in all_gather of layer 3, step 17" or "after reduce_scatter of layer 3, step 17".
inline std::string to_string(const Activity::Snapshot& at) {
  std::string text = at.joined == 0 ? "before its first operation" : at.inside ? "in " : "after ";
  if (at.joined > 0) text += at.operation;
  if (at.step > 0) text += ", step " + std::to_string(at.step);
  return text;
}

}  // namespace parscale::distributed
