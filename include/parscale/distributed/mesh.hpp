/// A connection between every two ranks of a group.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "alarm.hpp"
#include "roster.hpp"

namespace parscale::distributed {

/// Where a rank waits for the others of a mesh, and what they must say to be let in.
struct Doorway {
  std::string host = {}, address = {};
  int port = 0;
  std::uint64_t token = 0;
};
inline std::string to_text(const Doorway& door) {
  return door.host + " " + door.address + " " + std::to_string(door.port) + " " + std::to_string(door.token);
}
inline Doorway read_doorway(const std::string& text) {
  Doorway door;
  std::istringstream(text) >> door.host >> door.address >> door.port >> door.token;
  return door;
}

/// What the ranks of a mesh share: how to reach this host, and rank 0's, from elsewhere.
struct Surroundings {
  bool one_host = true;
  Address own = {};
  Address of_rank_0 = {};
};

class Mesh {
 public:
  /// Opens this rank's doorway.
  explicit Mesh(const Surroundings& around) : around_(around) {
    Address address = around.own;
    address.set_port(0);
    listener_ = around.one_host ? listen_at(address) : listen_everywhere(0);
    if (!listener_.is_open())
      throw PeerError(
          {.what = "No port can be opened for the other ranks", .why = io::detail::words_for(errno)});
    std::random_device random;
    own_ = {host_name(), to_string(around.own), distributed::own_address(listener_).port(),
            std::uint64_t{random()} << 32 | random()};
  }

  const Doorway& doorway() const { return own_; }

  /// Connects to all lower ranks and lets all higher ones in. Sockets are by rank; that of `rank` is not
  /// open.
  std::vector<Socket> connect(int rank, const std::vector<Doorway>& doors, const Alarm& alarm) {
    sockets_.resize(doors.size());
    const auto deadline = Clock::now() + std::chrono::seconds(60);
    for (int to = 0; to < rank; ++to) call(rank, to, doors[static_cast<std::size_t>(to)], deadline);
    for (auto missing = static_cast<int>(doors.size()) - rank - 1; missing > 0;) {
      alarm.check();
      if (Clock::now() > deadline)
        throw PeerError({.what = "Higher ranks did not connect", .where = place(rank)});
      if (let_in()) --missing;
    }
    return std::move(sockets_);
  }

 private:
  struct Greeting {
    std::uint64_t token, rank;
  };
  static std::string place(int rank) { return "rank " + std::to_string(rank) + ", connecting the ranks"; }

  void call(int rank, int to, const Doorway& door, Clock::time_point deadline) {
    const std::vector<Address> addresses = resolve(door.address, door.port);
    if (addresses.empty()) throw PeerError({.what = "Not an address: " + door.address, .where = place(rank)});
    Address address = addresses.front();
    if (address.is_loopback() && door.host != own_.host) {  // rank 0's host as it sees itself
      address = around_.of_rank_0;
      address.set_port(door.port);
    }
    Socket socket = connect_to(address, deadline);
    const Greeting greeting{door.token, static_cast<std::uint64_t>(rank)};
    if (!socket.is_open() ||
        ::send(socket.get(), &greeting, sizeof greeting, MSG_NOSIGNAL) != sizeof greeting)
      throw PeerError({.what = "Rank " + std::to_string(to) + " cannot be reached",
                       .where = place(rank),
                       .why = to_string(address) + " port " + std::to_string(door.port) + " on " + door.host +
                              ": " + io::detail::words_for(errno)});
    sockets_[static_cast<std::size_t>(to)] = std::move(socket);
  }

  /// Whether a rank has come in. Strangers are sent away.
  bool let_in() {
    if (!wait_for(listener_, POLLIN, Clock::now() + Milliseconds(100))) return false;
    Socket socket = accept_from(listener_);
    Greeting greeting{};
    if (!socket.is_open() || !wait_for(socket, POLLIN, Clock::now() + std::chrono::seconds(2))) return false;
    if (::recv(socket.get(), &greeting, sizeof greeting, 0) != sizeof greeting) return false;
    if (greeting.token != own_.token || greeting.rank >= sockets_.size()) return false;
    sockets_[static_cast<std::size_t>(greeting.rank)] = std::move(socket);
    return true;
  }

  Surroundings around_;
  Socket listener_;
  Doorway own_;
  std::vector<Socket> sockets_;
};

}  // namespace parscale::distributed
