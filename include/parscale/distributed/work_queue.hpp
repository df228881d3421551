/// A thread that does one piece of work after the other, so that communication runs beside computation.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace parscale::distributed {

/// Something that was started and will end. Its end waits for the work, silently: memory that the work uses
/// must outlive it.
class [[nodiscard]] PendingWork {
 public:
  /// Work that has ended well.
  PendingWork() = default;
  PendingWork(PendingWork&&) noexcept = default;
  PendingWork& operator=(PendingWork&& other) noexcept {
    if (this != &other) {
      finish();
      state_ = std::move(other.state_);
    }
    return *this;
  }
  ~PendingWork() { finish(); }

  /// Returns when the work has ended; throws what it threw. A second call does nothing.
  void wait() {
    const std::shared_ptr<State> state = std::move(state_);
    if (state == nullptr) return;
    state->finish();
    if (state->error != nullptr) std::rethrow_exception(state->error);
  }

 private:
  friend class WorkQueue;
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    std::exception_ptr error;
    std::function<void()> work;

    void finish() {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return done; });
    }
  };

  explicit PendingWork(std::shared_ptr<State> state) : state_(std::move(state)) {}
  void finish() noexcept {
    if (state_ != nullptr) state_->finish();
    state_.reset();
  }

  std::shared_ptr<State> state_;
};

/// After one piece of work has failed, all later ones fail with the same exception, undone: ranks would no
/// longer agree on what comes next.
class WorkQueue {
 public:
  WorkQueue() : thread_([this] { run(); }) {}
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;
  ~WorkQueue() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  PendingWork start(std::function<void()> work) {
    auto state = std::make_shared<PendingWork::State>();
    state->work = std::move(work);
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(state);
    }
    changed_.notify_one();
    return PendingWork(std::move(state));
  }

 private:
  void run() {
    while (const auto state = next()) {
      if (failed_ == nullptr) {
        try {
          state->work();
        } catch (...) {
          failed_ = std::current_exception();
        }
      }
      state->work = nullptr;
      // Told under the lock: whoever waits may end the state at once.
      const std::lock_guard lock(state->mutex);
      state->error = failed_;
      state->done = true;
      state->changed.notify_all();
    }
  }

  std::shared_ptr<PendingWork::State> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return closing_ || !waiting_.empty(); });
    if (waiting_.empty()) return nullptr;
    auto state = std::move(waiting_.front());
    waiting_.pop_front();
    return state;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<PendingWork::State>> waiting_;
  bool closing_ = false;
  std::exception_ptr failed_;  // only the thread uses it
  std::thread thread_;         // the last member: it uses the others
};

}  // namespace parscale::distributed
