/// The meeting place of a run: a thread of rank 0 that lets the ranks in, passes texts between them, hears
/// whether they live, and tells all when one does not.
#pragma once

#include <list>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "channel.hpp"
#include "watchdog.hpp"

namespace parscale::distributed {

struct RendezvousOptions {
  /// How long ranks may come later than the first.
  Milliseconds join_timeout = std::chrono::minutes(5);
  /// How long a place that is taken (by another run, by the run before a restart) may take to become free.
  Milliseconds foreign_timeout = std::chrono::seconds(30);
};

class RendezvousServer {
 public:
  RendezvousServer(Socket listener, const Launch& launch, Milliseconds join_timeout, Milliseconds timeout)
      : listener_(std::move(listener)),
        launch_(launch),
        timeout_(timeout),
        join_timeout_(join_timeout),
        deadline_(Clock::now() + join_timeout),
        members_(static_cast<std::size_t>(launch.world), nullptr),
        thread_([this] { run(); }) {}
  RendezvousServer(const RendezvousServer&) = delete;
  RendezvousServer& operator=(const RendezvousServer&) = delete;
  /// Waits until all ranks have left or died.
  ~RendezvousServer() { thread_.join(); }

  /// Ends without waiting for anybody.
  void abandon() {
    abandoned_ = true;
    waker_.wake();
  }

 private:
  struct Guest {
    Channel channel;
    Clock::time_point came = Clock::now();
    Member member = {};
    bool joined = false;
    bool left = false;
  };

  void run() {
    while (!abandoned_ && !finished()) {
      wait();
      for (Socket socket = accept_from(listener_); socket.is_open(); socket = accept_from(listener_))
        guests_.push_back({.channel = Channel(std::move(socket))});
      for (Guest& guest : guests_) serve(guest);
      guests_.remove_if([&](Guest& guest) { return is_gone(guest); });
      keep_time();
    }
  }

  bool finished() const {
    if (!watchdog_) return failed_ && (guests_.empty() || Clock::now() > deadline_);
    return std::all_of(members_.begin(), members_.end(),
                       [](const Guest* member) { return member == nullptr; }) ||
           (failed_ && Clock::now() > deadline_);
  }

  void wait() {
    std::vector<pollfd> items{{listener_.get(), POLLIN, 0}, {waker_.get(), POLLIN, 0}};
    for (const Guest& guest : guests_) items.push_back({guest.channel.get(), guest.channel.events(), 0});
    const Milliseconds most = watchdog_ ? Watchdog::interval(timeout_) / 2 : Milliseconds(100);
    ::poll(items.data(), items.size(), static_cast<int>(most.count()));
    waker_.clear();
  }

  void serve(Guest& guest) {
    guest.channel.transfer();
    try {
      while (auto message = guest.channel.next()) handle(guest, *message);
    } catch (const std::exception&) {
      refuse(guest, "what it says cannot be understood");
    }
  }

  void handle(Guest& guest, const Message& message) {
    using Kind = Message::Kind;
    if (message.kind == Kind::hello) return welcome(guest, message.texts);
    if (!guest.joined) return;
    const int rank = guest.member.rank;
    if (message.kind == Kind::gather) return gather(rank, message.texts.at(0));
    if (message.kind == Kind::beat && watchdog_) watchdog_->heard(rank, read_activity(message.texts));
    if (message.kind == Kind::failed) {
      const auto& t = message.texts;
      fail({.what = t.at(0), .where = t.at(1), .why = t.at(2), .remedy = t.at(3)});
    }
    if (message.kind == Kind::leave) {
      guest.left = true;
      if (watchdog_) watchdog_->left(rank);
    }
  }

  void welcome(Guest& guest, const std::vector<std::string>& texts) {
    guest.member = read_member(texts, 2);
    const int rank = guest.member.rank;
    if (texts.at(0) != launch_.run)
      return refuse(guest,
                    "this port belongs to run \"" + launch_.run + "\", not to \"" + texts.at(0) + "\"");
    if (texts.at(1) != std::to_string(launch_.world))
      return refuse(guest, "this run has " + std::to_string(launch_.world) + " ranks, not " + texts.at(1));
    if (rank < 0 || rank >= launch_.world) return refuse(guest, "there is no such rank");
    if (watchdog_) return refuse(guest, "this run is complete and has begun");
    if (failed_) return refuse(guest, "this run has failed");
    Guest*& place = members_[static_cast<std::size_t>(rank)];
    if (place != nullptr) return refuse(guest, "its place is taken by " + to_string(place->member));
    place = &guest;
    guest.joined = true;
    guest.channel.send({Message::Kind::welcome});
    if (missing().empty()) begin();
  }

  void refuse(Guest& guest, const std::string& why) {
    refusals_[to_string(guest.member)] = why;
    guest.channel.send({Message::Kind::refused, {why, host_name(), std::to_string(::getpid())}});
    guest.left = true;
  }

  void begin() {
    Roster roster;
    Message ready{Message::Kind::ready};
    for (const Guest* member : members_) {
      roster.push_back(member->member);
      append(ready.texts, member->member);
    }
    watchdog_.emplace(roster, timeout_);
    tell_all(ready);
  }

  void gather(int rank, const std::string& text) {
    gathered_[rank] = text;
    if (static_cast<int>(gathered_.size()) < launch_.world) return;
    Message all{Message::Kind::gather};
    for (const auto& [from, its] : gathered_) all.texts.push_back(its);
    gathered_.clear();
    tell_all(all);
  }

  /// A rank whose connection has closed: it left, or it died. A guest who never says who it is goes, too.
  bool is_gone(Guest& guest) {
    const bool mute = !guest.joined && Clock::now() - guest.came > std::chrono::seconds(5);
    if (guest.channel.is_open() && !mute) return false;
    if (guest.joined) {
      members_[static_cast<std::size_t>(guest.member.rank)] = nullptr;
      if (watchdog_ && !guest.left) fail(watchdog_->died(guest.member.rank));
    }
    return true;
  }

  void keep_time() {
    if (failed_) return;
    if (!watchdog_) {
      if (Clock::now() > deadline_) fail(who_is_missing());
      return;
    }
    if (Clock::now() < next_beat_) return;
    next_beat_ = Clock::now() + Watchdog::interval(timeout_);
    tell_all({Message::Kind::beat, to_texts(watchdog_->activity(0))});
    if (const auto verdict = watchdog_->judge()) fail(*verdict);
  }

  /// Tells everybody, who then have a moment to hear it and to go.
  void fail(const Explanation& e) {
    if (std::exchange(failed_, true)) return;
    deadline_ = Clock::now() + std::chrono::seconds(1);
    tell_all({Message::Kind::failed, {e.what, e.where, e.why, e.remedy}});
  }

  void tell_all(const Message& message) {
    for (Guest* member : members_)
      if (member != nullptr) member->channel.send(message);
  }

  std::vector<int> missing() const {
    std::vector<int> ranks;
    for (int rank = 0; rank < launch_.world; ++rank)
      if (members_[static_cast<std::size_t>(rank)] == nullptr) ranks.push_back(rank);
    return ranks;
  }

  Explanation who_is_missing() const {
    const std::vector<int> ranks = missing();
    std::string hosts, others;
    for (const int rank : ranks)
      hosts += (hosts.empty() ? "rank " : ", rank ") + std::to_string(rank) + " on " + host_of(rank);
    for (const auto& [who, why] : refusals_) others += "; " + who + " was refused: " + why;
    return {.what = "Ranks are missing: " + ranges(ranks) + " of " + std::to_string(launch_.world),
            .where = hosts,
            .why = "they did not come within " + std::to_string(join_timeout_.count() / 1000) + " s" + others,
            .remedy =
                "look at what they wrote; check that they have the same MASTER_ADDR and MASTER_PORT and that "
                "port " +
                std::to_string(launch_.rendezvous_port()) + " of rank 0's host can be reached"};
  }
  /// Ranks of one host are consecutive, so that one that came tells where its neighbours are.
  std::string host_of(int rank) const {
    for (const Guest* member : members_) {
      if (member == nullptr) continue;
      const int first = member->member.rank - member->member.local_rank;
      if (rank >= first && rank < first + member->member.local_world) return member->member.host;
    }
    return "a host of which no rank came";
  }

  Socket listener_;
  const Launch launch_;
  const Milliseconds timeout_, join_timeout_;
  Clock::time_point deadline_;
  Clock::time_point next_beat_ = {};
  std::list<Guest> guests_;      // a list: members point into it
  std::vector<Guest*> members_;  // by rank; null: not here
  std::map<int, std::string> gathered_;
  std::map<std::string, std::string> refusals_;
  std::optional<Watchdog> watchdog_;  // once all are here
  bool failed_ = false;
  std::atomic<bool> abandoned_ = false;
  Waker waker_;
  std::thread thread_;
};

}  // namespace parscale::distributed
