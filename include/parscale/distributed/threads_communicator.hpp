/// Ranks that are threads of one process: for tests, and to try anything about many ranks on one machine.
#pragma once

#include <condition_variable>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpu_communicator.hpp"

namespace parscale::distributed {

/// Where the threads of a group meet.
class ThreadsGroup {
 public:
  ThreadsGroup(int size, Watch watch)
      : size_(size),
        watch_(std::move(watch)),
        posts_(static_cast<std::size_t>(size)),
        left_(static_cast<std::size_t>(size)),
        waking_(watch_.alarm->listen([this] {
          { const std::lock_guard lock(mutex_); }
          changed_.notify_all();
        })) {}

  int size() const { return size_; }
  const Watch& watch() const { return watch_; }

  void exchange(int rank, const Exchange& pieces, const std::string& operation) {
    std::unique_lock lock(mutex_);
    const std::uint64_t round = round_;
    posts_[at(rank)] = &pieces;
    changed_.notify_all();
    const auto all_here = [&] { return round_ != round || missing().empty(); };
    const auto over = [&] { return all_here() || watch_.alarm->raised() || anyone_left(); };
    changed_.wait_for(lock, watch_.timeout, over);
    if (!all_here()) {
      posts_[at(rank)] = nullptr;
      fail(rank, operation);
    }
    lock.unlock();
    // Everybody is here and stays until all have copied, whatever else happens.
    const std::string error = copy(rank, pieces);
    lock.lock();
    if (++copied_ == size_) {
      copied_ = 0;
      ++round_;
      posts_.assign(posts_.size(), nullptr);
      changed_.notify_all();
    }
    changed_.wait(lock, [&] { return round_ != round; });
    if (!error.empty()) throw PeerError({.what = error, .where = place(rank, operation)});
  }

  /// The group of some of the ranks; the first of them to ask makes it.
  std::shared_ptr<ThreadsGroup> subgroup(int rank, const std::vector<int>& members) {
    const std::lock_guard lock(mutex_);
    auto& made = subgroups_[{members, ++splits_[{members, rank}]}];
    if (made == nullptr) made = std::make_shared<ThreadsGroup>(static_cast<int>(members.size()), watch_);
    return made;
  }

  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    left_[at(rank)] = true;
    changed_.notify_all();
  }

 private:
  static std::size_t at(int rank) { return static_cast<std::size_t>(rank); }
  static std::string place(int rank, const std::string& operation) {
    return "rank " + std::to_string(rank) + ", in " + operation;
  }

  std::vector<int> missing() const {
    std::vector<int> ranks;
    for (int r = 0; r < size_; ++r)
      if (posts_[at(r)] == nullptr) ranks.push_back(r);
    return ranks;
  }
  bool anyone_left() const { return std::find(left_.begin(), left_.end(), true) != left_.end(); }

  [[noreturn]] void fail(int rank, const std::string& operation) const {
    watch_.alarm->check();
    for (int r = 0; r < size_; ++r)
      if (left_[at(r)])
        throw PeerError({.what = "Rank " + std::to_string(r) + " has left", .where = place(rank, operation)});
    std::string names;
    for (const int r : missing())
      if (r != rank) names += (names.empty() ? "" : ", ") + std::to_string(r);
    throw PeerError({.what = "Rank " + names + " did not come in time",
                     .where = place(rank, operation),
                     .why = "waited for " + std::to_string(watch_.timeout.count()) + " ms"});
  }

  /// Takes what the others have for `rank`; says what is wrong with it.
  std::string copy(int rank, const Exchange& pieces) const {
    std::string error;
    for (int r = 0; r < size_; ++r) {
      if (r == rank) continue;
      const auto from = posts_[at(r)]->outgoing(rank);
      const auto to = pieces.incoming(r);
      if (from.size() != to.size())
        error = "Rank " + std::to_string(r) + " sends " + std::to_string(from.size()) + " bytes where " +
                std::to_string(to.size()) + " are expected";
      else if (!to.empty())
        std::memcpy(to.data(), from.data(), to.size());
    }
    return error;
  }

  const int size_;
  const Watch watch_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<const Exchange*> posts_;
  std::vector<bool> left_;
  std::uint64_t round_ = 0;
  int copied_ = 0;
  std::map<std::pair<std::vector<int>, int>, int> splits_;
  std::map<std::pair<std::vector<int>, int>, std::shared_ptr<ThreadsGroup>> subgroups_;
  Alarm::Listening waking_;
};

class ThreadsTransport {
 public:
  /// One a rank. The activity in the group's watch is shared by all ranks, so each takes one of its own.
  ThreadsTransport(std::shared_ptr<ThreadsGroup> group, int rank, std::shared_ptr<Activity> activity = {})
      : group_(std::move(group)), rank_(rank), watch_(group_->watch()) {
    watch_.activity = activity != nullptr ? std::move(activity) : std::make_shared<Activity>();
  }
  ThreadsTransport(ThreadsTransport&&) noexcept = default;
  ThreadsTransport& operator=(ThreadsTransport&&) noexcept = default;
  ~ThreadsTransport() {
    if (group_ != nullptr) group_->leave(rank_);
  }

  int rank() const { return rank_; }
  int size() const { return group_->size(); }
  const Watch& watch() const { return watch_; }

  void exchange(const Exchange& pieces, const std::string& operation) {
    group_->exchange(rank_, pieces, operation);
  }
  ThreadsTransport subgroup(const std::vector<int>& members) {
    const auto place = std::find(members.begin(), members.end(), rank_) - members.begin();
    return {group_->subgroup(rank_, members), static_cast<int>(place), watch_.activity};
  }

 private:
  std::shared_ptr<ThreadsGroup> group_;
  int rank_;
  Watch watch_;
};

using ThreadsCommunicator = CpuCommunicator<ThreadsTransport>;
static_assert(Communicator<ThreadsCommunicator>);

/// Runs work(ThreadsCommunicator&) on `size` threads, one a rank, and waits for all. Throws what the rank
/// threw that failed first; the others are woken by its leaving.
template <class F>
void run_ranks(int size, F&& work, Watch watch = {}) {
  const auto group = std::make_shared<ThreadsGroup>(size, std::move(watch));
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      ThreadsCommunicator on(ThreadsTransport(group, rank));
      try {
        work(on);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (first == nullptr) first = std::current_exception();
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (first != nullptr) std::rethrow_exception(first);
}

}  // namespace parscale::distributed
