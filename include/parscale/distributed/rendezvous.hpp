/// A rank's seat at the meeting place of its run: it learns who the others are, exchanges texts with them
/// before they can communicate otherwise (NCCL's id, addresses, fingerprints), and lives under their watch
/// until it leaves. Rank 0 hosts the meeting place on MASTER_PORT + 1; the port itself is the launcher's.
#pragma once

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "rendezvous_door.hpp"
#include "transport.hpp"

namespace parscale::distributed {

class Rendezvous {
 public:
  /// Returns when all ranks are here. Throws PeerError when some do not come in time, naming them;
  /// ConfigurationError when nobody said where to meet. A run of one rank opens no socket.
  explicit Rendezvous(const Launch& launch, Watch watch = {}, const RendezvousOptions& options = {})
      : launch_(launch), watch_(std::move(watch)), exceptions_(std::uncaught_exceptions()) {
    if (!launch.distributed()) {
      roster_ = {own_member(launch)};
      return;
    }
    if (launch.rank == 0) server_ = open_door(launch, watch_.timeout, options);
    try {
      auto entered = enter(launch, options);
      channel_.emplace(std::move(entered.channel));
      roster_ = std::move(entered.roster);
    } catch (...) {
      if (server_ != nullptr) server_->abandon();
      throw;
    }
    thread_ = std::thread([this] { run(); });
  }
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  /// Leaves. While an exception unwinds, it tells the others that this rank has failed. Rank 0 waits here
  /// until all others have left.
  ~Rendezvous() {
    if (!thread_.joinable()) return;
    if (std::uncaught_exceptions() > exceptions_ && !watch_.alarm->raised())
      fail({.what = "it stopped with an error of its own"});
    end({Message::Kind::leave});
    thread_.join();
    channel_.reset();
  }

  const Launch& launch() const { return launch_; }
  const Roster& roster() const { return roster_; }
  const Watch& watch() const { return watch_; }
  /// The two ends of the way between this rank and rank 0.
  Address own_address() const { return distributed::own_address(channel_->socket()); }
  Address address_of_rank_0() const { return peer_address(channel_->socket()); }

  /// Every rank gives a text and gets those of all, by rank. `what` is for messages.
  std::vector<std::string> gather(const std::string& text, const std::string& what) {
    if (!launch_.distributed()) return {text};
    watch_.activity->begin("rendezvous, exchange of " + what);
    std::unique_lock lock(mutex_);
    gathered_.reset();
    outgoing_.push_back({Message::Kind::gather, {text}});
    waker_.wake();
    const auto over = [&] { return gathered_.has_value() || watch_.alarm->raised(); };
    changed_.wait_for(lock, watch_.timeout + patience, over);
    if (!gathered_) watch_.alarm->check();
    if (!gathered_)
      throw PeerError({.what = "Some rank did not join the exchange of " + what,
                       .where = "rank " + std::to_string(launch_.rank)});
    watch_.activity->end();
    return std::move(*gathered_);
  }

  /// Tells the others that this rank cannot go on, and why; they end with PeerError.
  void fail(const Explanation& e) {
    if (!thread_.joinable()) return;
    const std::string where = e.where.empty() ? to_string(watch_.activity->snapshot()) : e.where;
    send({Message::Kind::failed,
          {subject(roster_[static_cast<std::size_t>(launch_.rank)]) + " failed: " + e.what, where, e.why,
           e.remedy}});
  }

 private:
  /// The watchdog at the rendezvous knows more than a time limit here, so it goes first.
  static constexpr Milliseconds patience = std::chrono::seconds(4);

  void send(Message message) {
    const std::lock_guard lock(mutex_);
    outgoing_.push_back(std::move(message));
    waker_.wake();
  }
  void end(Message message) {
    const std::lock_guard lock(mutex_);
    outgoing_.push_back(std::move(message));
    leaving_ = true;
    waker_.wake();
  }

  void run() {
    const auto waking = watch_.alarm->listen([this] {
      { const std::lock_guard lock(mutex_); }
      changed_.notify_all();
    });
    const Milliseconds interval = Watchdog::interval(watch_.timeout);
    Watchdog of_rank_0({roster_.front()}, watch_.timeout);
    auto next_beat = Clock::now();
    while (!send_all()) {
      if (Clock::now() >= next_beat) {
        next_beat = Clock::now() + interval;
        channel_->send({Message::Kind::beat, to_texts(watch_.activity->snapshot())});
      }
      std::array<pollfd, 2> items{{{channel_->get(), channel_->events(), 0}, {waker_.get(), POLLIN, 0}}};
      if (!channel_->is_open()) items[0].fd = -1;
      ::poll(items.data(), items.size(), until(next_beat));
      waker_.clear();
      hear(of_rank_0);
    }
  }

  /// Sends what waits. True when this rank is leaving and everything has been sent.
  bool send_all() {
    const std::lock_guard lock(mutex_);
    for (; !outgoing_.empty(); outgoing_.pop_front()) channel_->send(outgoing_.front());
    return leaving_ && (!channel_->is_open() || (channel_->events() & POLLOUT) == 0);
  }

  void hear(Watchdog& of_rank_0) {
    channel_->transfer();
    while (const auto message = channel_->next()) {
      const auto& t = message->texts;
      if (message->kind == Message::Kind::beat) of_rank_0.heard(0, read_activity(t));
      if (message->kind == Message::Kind::gather) deliver(t);
      if (message->kind == Message::Kind::failed)
        raise({.what = t.at(0), .where = t.at(1), .why = t.at(2), .remedy = t.at(3)});
    }
    if (watch_.alarm->raised()) return;
    if (!channel_->is_open()) return raise(of_rank_0.died(0));
    if (const auto verdict = of_rank_0.judge_silence()) raise(*verdict);
  }

  /// Beats are some moments old; where this rank stands is known to the point.
  void raise(Explanation e) {
    e.where += "; rank " + std::to_string(launch_.rank) + " " + to_string(watch_.activity->snapshot());
    watch_.alarm->raise(e);
  }

  void deliver(const std::vector<std::string>& texts) {
    const std::lock_guard lock(mutex_);
    gathered_ = texts;
    changed_.notify_all();
  }

  const Launch launch_;
  Watch watch_;
  const int exceptions_;
  std::unique_ptr<RendezvousServer> server_;
  std::optional<Channel> channel_;  // the thread's alone, once it runs
  Roster roster_;
  Waker waker_;
  std::mutex mutex_;  // guards the following
  std::condition_variable changed_;
  std::deque<Message> outgoing_;
  std::optional<std::vector<std::string>> gathered_;
  bool leaving_ = false;
  std::thread thread_;
};

}  // namespace parscale::distributed
