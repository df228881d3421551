/// A pool of threads for loops over a fixed grid of tasks. Which thread runs which task is left to chance, so
/// a task's result must depend on its number alone: then results are the same for any number of threads.
#pragma once

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "../../config.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

namespace parscale::cpu {

/// Cores that this process may run on.
inline int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n > 0 ? static_cast<int>(n) : 1;
}

class Threads {
 public:
  /// `count` threads, the calling one among them.
  explicit Threads(int count) {
    for (int i = 1; i < count; ++i) workers_.emplace_back([this, i] { work(i); });
  }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
  ~Threads() {
    stop_ = true;
    call();
    for (std::thread& worker : workers_) worker.join();
  }

  int count() const { return static_cast<int>(workers_.size()) + 1; }

  /// f(task, thread) for every task in [0, tasks); `thread` in [0, count()) picks scratch memory. Returns
  /// when all are done; an exception of a task is thrown here.
  template <class F>
  void run(Index tasks, F&& f) {
    run({.function = [](void* body, Index task,
                        int thread) { (*static_cast<std::remove_reference_t<F>*>(body))(task, thread); },
         .body = const_cast<void*>(static_cast<const void*>(&f)),
         .tasks = tasks});
  }

  /// f(begin, end) for [0, count) in chunks of `grain`.
  template <class F>
  void run_chunks(Index count, Index grain, F&& f) {
    run((count + grain - 1) / grain, [&](Index chunk, int) {
      const Index begin = chunk * grain;
      f(begin, begin + grain < count ? begin + grain : count);
    });
  }

 private:
  struct Job {
    void (*function)(void*, Index, int);
    void* body;
    Index tasks;
  };

  /// No template, so that a loop's body is compiled once, and not again for the path of one thread.
  void run(const Job& job) {
    if (workers_.empty() || job.tasks <= 1) {
      for (Index task = 0; task < job.tasks; ++task) job.function(job.body, task, 0);
      return;
    }
    job_ = job;
    next_ = 0;
    open_ = true;
    call();
    take_tasks(0);
    open_ = false;
    while (active_ > 0) pause();  // those that joined; a thread that wakes too late finds the gate closed
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }

  void call() {
    ++calls_;
    calls_.notify_all();
  }

  void work(int thread) {
    for (unsigned seen = 0;;) {
      seen = await_call(seen);
      if (stop_) return;
      ++active_;
      if (open_) take_tasks(thread);
      --active_;
    }
  }

  /// Watches for a while before it sleeps: the operations of one step follow each other closely.
  unsigned await_call(unsigned seen) {
    constexpr int patience = 2000;
    for (int i = 0; i < patience; ++i) {
      if (const unsigned now = calls_; now != seen) return now;
      pause();
    }
    calls_.wait(seen);
    return calls_;
  }

  void take_tasks(int thread) {
    try {
      for (Index task; (task = next_++) < job_.tasks;) job_.function(job_.body, task, thread);
    } catch (...) {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  Job job_{};
  std::atomic<Index> next_{0};
  std::atomic<int> active_{0};
  std::atomic<unsigned> calls_{0};
  std::atomic<bool> open_{false}, stop_{false};
  std::exception_ptr error_;
  std::mutex error_mutex_;
  std::vector<std::thread> workers_;
};

}  // namespace parscale::cpu
