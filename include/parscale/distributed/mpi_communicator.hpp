/// Ranks that are processes under mpirun, connected by MPI: for fabrics that MPI knows and TCP does not.
/// Needs the component `mpi`. The rendezvous still watches over them: MPI itself does not say who died.
#pragma once

// MPI's retired C++ bindings would want a library of their own.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <array>
#include <exception>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpu_communicator.hpp"
#include "rendezvous.hpp"

namespace parscale::distributed {

/// MPI from its beginning to its end, once a process. Made first, ended last.
class MpiSession {
 public:
  MpiSession() {
    int level = 0;
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level) != MPI_SUCCESS ||
        level < MPI_THREAD_MULTIPLE)
      throw ConfigurationError(
          {.what = "This MPI cannot be used from several threads",
           .remedy = "use an OpenMPI built with thread support, or training.communicator=tcp"});
  }
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
  /// After a failure, or while an exception unwinds, MPI's own end would wait for the dead.
  ~MpiSession() {
    if (!failed_ && std::uncaught_exceptions() == exceptions_) MPI_Finalize();
  }
  void set_failed() { failed_ = true; }

  /// Completes what mpirun leaves open when it starts several hosts: where rank 0 is.
  void complete(Launch& launch) const {
    if (!launch.master_address.empty()) return;
    std::array<char, 256> host{};
    if (launch.rank == 0) host_name().copy(host.data(), host.size() - 1);
    MPI_Bcast(host.data(), static_cast<int>(host.size()), MPI_CHAR, 0, MPI_COMM_WORLD);
    launch.master_address = host.data();
  }

 private:
  const int exceptions_ = std::uncaught_exceptions();
  bool failed_ = false;
};

class MpiTransport {
 public:
  /// All ranks of the rendezvous; all of them call it.
  MpiTransport(MpiSession& session, Rendezvous& rendezvous)
      : session_(&session), roster_(rendezvous.roster()), watch_(rendezvous.watch()) {
    take(MPI_COMM_WORLD, 0, rendezvous.launch().rank);
    if (rank_ != rendezvous.launch().rank || mpi_size() != size())
      throw ConfigurationError({.what = "MPI and the launch environment do not agree",
                                .why = "MPI says rank " + std::to_string(rank_) + " of " +
                                       std::to_string(mpi_size()) + ", the environment rank " +
                                       std::to_string(rendezvous.launch().rank) + " of " +
                                       std::to_string(size()),
                                .remedy = "start with mpirun, or use training.communicator=tcp"});
  }
  MpiTransport(MpiTransport&& other) noexcept
      : session_(other.session_),
        group_(std::exchange(other.group_, MPI_COMM_NULL)),
        rank_(other.rank_),
        roster_(std::move(other.roster_)),
        watch_(std::move(other.watch_)),
        sequence_(other.sequence_) {}
  MpiTransport& operator=(MpiTransport&& other) noexcept {
    std::swap(session_, other.session_);
    std::swap(group_, other.group_);
    std::swap(rank_, other.rank_);
    std::swap(roster_, other.roster_);
    std::swap(watch_, other.watch_);
    std::swap(sequence_, other.sequence_);
    return *this;
  }
  // The group is not freed: that is an operation of all its ranks, and some may be gone. MPI's end frees it.
  ~MpiTransport() = default;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(roster_.size()); }
  const Watch& watch() const { return watch_; }

  void exchange(const Exchange& pieces, const std::string& operation) {
    ++sequence_;
    Requests all;
    for (int i = 1; i < size(); ++i) {
      const int from = (rank_ + size() - i) % size();
      for_each_block(pieces.incoming(from), [&](std::byte* data, int bytes) {
        all.expect(from, bytes);
        check(MPI_Irecv(data, bytes, MPI_BYTE, from, tag(), group_, &all.items.back()), operation);
      });
    }
    for (int i = 1; i < size(); ++i) {
      const int to = (rank_ + i) % size();
      for_each_block(pieces.outgoing(to), [&](const std::byte* data, int bytes) {
        all.items.emplace_back();
        check(MPI_Isend(data, bytes, MPI_BYTE, to, tag(), group_, &all.items.back()), operation);
      });
    }
    finish(all, operation);
  }

  MpiTransport subgroup(const std::vector<int>& members) {
    MpiTransport part(*this, members);
    part.take(group_, members.front(), rank_);
    return part;
  }

 private:
  /// The watchdog knows more than a time limit here, so it goes first.
  static constexpr std::chrono::milliseconds patience = std::chrono::seconds(4);

  struct Requests {
    std::vector<MPI_Request> items;
    std::vector<std::pair<int, int>> expected;  ///< from whom, how many bytes: the first of the items

    void expect(int from, int bytes) {
      items.emplace_back();
      expected.emplace_back(from, bytes);
    }
  };

  MpiTransport(const MpiTransport& whole, const std::vector<int>& members)
      : session_(whole.session_), watch_(whole.watch_) {
    for (const int r : members) roster_.push_back(whole.roster_[static_cast<std::size_t>(r)]);
  }

  void take(MPI_Comm from, int colour, int key) {
    MPI_Comm_split(from, colour, key, &group_);
    MPI_Comm_set_errhandler(group_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(group_, &rank_);
  }
  int mpi_size() const {
    int size = 0;
    MPI_Comm_size(group_, &size);
    return size;
  }
  int tag() const { return static_cast<int>(sequence_ % 30000); }

  /// MPI counts in int, so that long pieces go in blocks. An empty piece is one empty block.
  template <class T, class F>
  static void for_each_block(std::span<T> piece, F f) {
    constexpr std::size_t longest = std::size_t{1} << 30;
    do {
      const std::size_t bytes = std::min(longest, piece.size());
      f(piece.data(), static_cast<int>(bytes));
      piece = piece.subspan(bytes);
    } while (!piece.empty());
  }

  /// Waits without keeping a core busy: there may be more ranks than cores.
  void finish(Requests& all, const std::string& operation) {
    std::vector<MPI_Status> statuses(all.items.size());
    const auto deadline = Clock::now() + watch_.timeout + patience;
    for (int polls = 0;; ++polls) {
      int done = 0;
      const int error =
          MPI_Testall(static_cast<int>(all.items.size()), all.items.data(), &done, statuses.data());
      if (error != MPI_SUCCESS) check_statuses(statuses, operation);
      check(error, operation);
      if (done) break;
      watch(deadline, operation);
      if (polls < 100)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    for (std::size_t i = 0; i < all.expected.size(); ++i) {
      int bytes = 0;
      MPI_Get_count(&statuses[i], MPI_BYTE, &bytes);
      const auto [from, expected] = all.expected[i];
      if (bytes != expected)
        fail(subject(member(from)) + " does something else at this point", operation,
             "it sends " + std::to_string(bytes) + " bytes where " + std::to_string(expected) +
                 " are expected");
    }
  }

  void watch(Clock::time_point deadline, const std::string& operation) const {
    if (watch_.alarm->raised()) session_->set_failed();
    watch_.alarm->check();
    if (Clock::now() > deadline) fail("Some rank did not come in time", operation, "");
  }
  void check(int error, const std::string& operation) const {
    if (error == MPI_SUCCESS) return;
    std::array<char, MPI_MAX_ERROR_STRING> text{};
    int size = 0;
    MPI_Error_string(error, text.data(), &size);
    fail("MPI failed", operation, text.data());
  }
  void check_statuses(const std::vector<MPI_Status>& statuses, const std::string& operation) const {
    for (const MPI_Status& status : statuses)
      if (status.MPI_ERROR != MPI_ERR_PENDING) check(status.MPI_ERROR, operation);
  }
  const Member& member(int r) const { return roster_[static_cast<std::size_t>(r)]; }

  /// Whoever is gone may have said why, or the watchdog knows.
  [[noreturn]] void fail(const std::string& what, const std::string& operation,
                         const std::string& why) const {
    session_->set_failed();
    watch_.alarm->wait_for(patience);
    watch_.alarm->check();
    throw PeerError({.what = what,
                     .where = "rank " + std::to_string(rank_) + ", in " + operation + ", step " +
                              std::to_string(watch_.activity->snapshot().step),
                     .why = why});
  }

  MpiSession* session_;
  MPI_Comm group_ = MPI_COMM_NULL;
  int rank_ = 0;
  Roster roster_;
  Watch watch_;
  std::uint64_t sequence_ = 0;
};

using MpiCommunicator = CpuCommunicator<MpiTransport>;
static_assert(Communicator<MpiCommunicator>);

}  // namespace parscale::distributed
