/// The first failure of a run, known to everything that may be blocked when it comes: whoever sees it raises
/// the alarm, and every wait ends with it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "../core/error.hpp"

namespace parscale::distributed {

class Alarm {
 public:
  /// Only the first call counts. Runs the listeners in the calling thread; they must not throw.
  void raise(const Explanation& explanation) {
    std::map<std::size_t, std::function<void()>> listeners;
    {
      const std::lock_guard lock(mutex_);
      if (raised_) return;
      explanation_ = explanation;
      raised_ = true;
      listeners.swap(listeners_);
      running_ = true;
    }
    changed_.notify_all();
    for (const auto& [id, listener] : listeners) listener();
    const std::lock_guard lock(mutex_);
    running_ = false;
    changed_.notify_all();
  }

  bool raised() const noexcept { return raised_; }

  /// Throws PeerError when the alarm has been raised.
  void check() const {
    if (raised_) rethrow();
  }

  /// Whether the alarm is raised before this much time has passed.
  template <class Duration>
  bool wait_for(Duration time) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, time, [&] { return raised_.load(); });
  }

  /// Runs while it lives; its end waits for a running listener.
  class Listening {
   public:
    Listening(Alarm& alarm, std::size_t id) : alarm_(&alarm), id_(id) {}
    Listening(Listening&& other) noexcept : alarm_(std::exchange(other.alarm_, nullptr)), id_(other.id_) {}
    Listening& operator=(Listening&&) = delete;
    ~Listening() {
      if (alarm_ != nullptr) alarm_->forget(id_);
    }

   private:
    Alarm* alarm_;
    std::size_t id_;
  };

  /// `listener` wakes what is blocked. It runs at once when the alarm has been raised before.
  [[nodiscard]] Listening listen(std::function<void()> listener) {
    std::unique_lock lock(mutex_);
    if (!raised_) {
      listeners_.emplace(++last_id_, std::move(listener));
      return {*this, last_id_};
    }
    lock.unlock();
    listener();
    return {*this, 0};
  }

 private:
  [[noreturn]] void rethrow() const {
    const std::lock_guard lock(mutex_);
    throw PeerError(explanation_);
  }
  void forget(std::size_t id) {
    std::unique_lock lock(mutex_);
    listeners_.erase(id);
    changed_.wait(lock, [&] { return !running_; });
  }

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::atomic<bool> raised_ = false;
  bool running_ = false;
  Explanation explanation_{};
  std::map<std::size_t, std::function<void()>> listeners_;
  std::size_t last_id_ = 0;
};

}  // namespace parscale::distributed
