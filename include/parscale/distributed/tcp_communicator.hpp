/// Ranks that are processes, connected by TCP, each to each: needs nothing but the rendezvous, so it works
/// under every launcher. The communicator of choice on the CPU.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cpu_communicator.hpp"
#include "link.hpp"
#include "mesh.hpp"
#include "rendezvous.hpp"

namespace parscale::distributed {

class TcpTransport {
 public:
  /// Connects all ranks of the rendezvous; all of them call it.
  explicit TcpTransport(Rendezvous& rendezvous)
      : rank_(rendezvous.launch().rank), roster_(rendezvous.roster()), watch_(rendezvous.watch()) {
    if (size() == 1) return;
    const auto elsewhere = [&](const Member& m) { return m.host != roster_.front().host; };
    around_ = {.one_host = std::none_of(roster_.begin(), roster_.end(), elsewhere),
               .own = rendezvous.own_address(),
               .of_rank_0 = rendezvous.address_of_rank_0()};
    Mesh mesh(around_);
    std::vector<Doorway> doors;
    for (const std::string& text : rendezvous.gather(to_text(mesh.doorway()), "addresses"))
      doors.push_back(read_doorway(text));
    use(mesh.connect(rank_, doors, *watch_.alarm));
  }

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(roster_.size()); }
  const Watch& watch() const { return watch_; }

  void exchange(const Exchange& pieces, const std::string& operation) {
    ++sequence_;
    for (int r = 0; r < size(); ++r)
      if (r != rank_) link(r).begin(sequence_, pieces.outgoing(r), pieces.incoming(r));
    const Alarm::Listening waking = watch_.alarm->listen([this] { waker_->wake(); });
    const auto deadline = Clock::now() + watch_.timeout + patience;
    while (!advance(operation)) wait(operation, deadline);
  }

  TcpTransport subgroup(const std::vector<int>& members) {
    if (size() == 1) return {*this, members};
    Mesh mesh(around_);
    const std::vector<Doorway> all = gather(mesh.doorway());
    TcpTransport part(*this, members);
    std::vector<Doorway> doors;
    for (const int r : members) doors.push_back(all[static_cast<std::size_t>(r)]);
    part.use(mesh.connect(part.rank_, doors, *watch_.alarm));
    return part;
  }

 private:
  /// The watchdog knows more than a time limit here, so it goes first; so it does when a peer is gone.
  static constexpr Milliseconds patience = std::chrono::seconds(4);

  /// Some of the ranks of `whole`, not yet connected.
  TcpTransport(const TcpTransport& whole, const std::vector<int>& members)
      : watch_(whole.watch_), around_(whole.around_) {
    for (const int r : members) {
      if (r == whole.rank_) rank_ = size();
      roster_.push_back(whole.roster_[static_cast<std::size_t>(r)]);
    }
  }
  void use(std::vector<Socket> sockets) {
    for (Socket& socket : sockets) links_.emplace_back(std::move(socket));
  }

  Link& link(int r) { return links_[static_cast<std::size_t>(r)]; }
  const Member& member(int r) const { return roster_[static_cast<std::size_t>(r)]; }

  /// Moves all that can be moved without waiting, the next rank's first, so that not all send to rank 0 at
  /// once. Whether the exchange is over.
  bool advance(const std::string& operation) {
    bool over = false;
    for (bool moved = true; moved && !over;) {
      moved = false;
      over = true;
      for (int i = 1; i < size(); ++i) {
        const int r = (rank_ + i) % size();
        if (link(r).is_over()) continue;
        moved |= link(r).advance();
        check(r, operation);
        over &= link(r).is_over();
      }
    }
    return over;
  }

  void wait(const std::string& operation, Clock::time_point deadline) {
    std::vector<pollfd> items{{waker_->get(), POLLIN, 0}};
    for (int r = 0; r < size(); ++r)
      if (r != rank_ && !link(r).is_over()) items.push_back({link(r).get(), link(r).events(), 0});
    ::poll(items.data(), items.size(), until(deadline));
    watch_.alarm->check();
    if (Clock::now() < deadline) return;
    std::string late;
    for (int r = 0; r < size(); ++r)
      if (r != rank_ && !link(r).is_over()) late += (late.empty() ? "" : ", ") + to_string(member(r));
    fail("No answer in time from " + late, operation,
         "waited for " + std::to_string(watch_.timeout.count()) + " ms");
  }

  void check(int r, const std::string& operation) {
    if (link(r).is_broken()) {
      // Whoever closed may have said why, or the watchdog knows.
      watch_.alarm->wait_for(patience);
      watch_.alarm->check();
      fail(subject(member(r)) + " has gone", operation, "its connection was closed");
    }
    if (link(r).disagrees())
      fail(subject(member(r)) + " does something else at this point", operation,
           "it sends " + std::to_string(link(r).bytes_announced()) + " bytes where " +
               std::to_string(link(r).bytes_expected()) + " are expected");
  }

  [[noreturn]] void fail(const std::string& what, const std::string& operation,
                         const std::string& why) const {
    throw PeerError({.what = what,
                     .where = "rank " + std::to_string(rank_) + ", in " + operation + ", step " +
                              std::to_string(watch_.activity->snapshot().step),
                     .why = why});
  }

  std::vector<Doorway> gather(const Doorway& own) {
    constexpr std::size_t longest = 512;
    std::string mine = to_text(own);
    mine.resize(longest);
    std::string all(longest * roster_.size(), '\0');
    Exchange pieces(size());
    for (int r = 0; r < size(); ++r) {
      pieces.send(r, mine.data(), static_cast<Index>(longest));
      pieces.receive(r, all.data() + longest * static_cast<std::size_t>(r), static_cast<Index>(longest));
    }
    pieces.copy_own(rank_);
    exchange(pieces, "split");
    std::vector<Doorway> doors;
    for (std::size_t i = 0; i < all.size(); i += longest)
      doors.push_back(read_doorway(all.substr(i, longest)));
    return doors;
  }

  int rank_ = 0;
  Roster roster_;
  Watch watch_;
  Surroundings around_ = {};
  std::vector<Link> links_;  // by rank; our own is not used
  std::uint64_t sequence_ = 0;
  std::unique_ptr<Waker> waker_ = std::make_unique<Waker>();  // a place that does not move
};

using TcpCommunicator = CpuCommunicator<TcpTransport>;
static_assert(Communicator<TcpCommunicator>);

}  // namespace parscale::distributed
