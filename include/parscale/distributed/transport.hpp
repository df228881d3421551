/// What a CPU communicator needs of whatever connects the ranks.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "activity.hpp"
#include "alarm.hpp"

namespace parscale::distributed {

/// What a rank waits by: the alarm that ends every wait, the activity that explains it, and how long one
/// operation may take.
struct Watch {
  std::shared_ptr<Alarm> alarm = std::make_shared<Alarm>();
  std::shared_ptr<Activity> activity = std::make_shared<Activity>();
  std::chrono::milliseconds timeout = std::chrono::minutes(30);
};

/// One piece to each rank and one from each; pieces may be empty.
class Exchange {
 public:
  explicit Exchange(int size)
      : outgoing_(static_cast<std::size_t>(size)), incoming_(static_cast<std::size_t>(size)) {}

  template <class T>
  void send(int to, const T* data, Index count) {
    outgoing_[static_cast<std::size_t>(to)] = std::as_bytes(std::span(data, static_cast<std::size_t>(count)));
  }
  template <class T>
  void receive(int from, T* data, Index count) {
    incoming_[static_cast<std::size_t>(from)] =
        std::as_writable_bytes(std::span(data, static_cast<std::size_t>(count)));
  }

  std::span<const std::byte> outgoing(int to) const { return outgoing_[static_cast<std::size_t>(to)]; }
  std::span<std::byte> incoming(int from) const { return incoming_[static_cast<std::size_t>(from)]; }

  /// The piece that `rank` sends to itself; it may lie at its place already.
  void copy_own(int rank) const {
    const std::span<const std::byte> from = outgoing(rank);
    if (!from.empty() && from.data() != incoming(rank).data())
      std::memmove(incoming(rank).data(), from.data(), from.size());
  }

 private:
  std::vector<std::span<const std::byte>> outgoing_;
  std::vector<std::span<std::byte>> incoming_;
};

/// `exchange` moves all pieces but those to oneself, and throws PeerError when a peer is gone, when the alarm
/// is raised, when the time is over, or when a piece has another size than the receiver expects. `subgroup`
/// makes the transport of some of the ranks; all of them call it, and others may do so for other subgroups.
template <class T>
concept Transport = std::movable<T> &&
    requires(T& on, const T& as, const Exchange& pieces, const std::string& operation,
             const std::vector<int>& members) {
  { as.rank() } -> std::same_as<int>;
  { as.size() } -> std::same_as<int>;
  { as.watch() } -> std::same_as<const Watch&>;
  on.exchange(pieces, operation);
  { on.subgroup(members) } -> std::same_as<T>;
};

}  // namespace parscale::distributed
