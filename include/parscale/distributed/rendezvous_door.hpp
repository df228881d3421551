/// How ranks get into the rendezvous: rank 0 opens the port, all knock until they are let in, and whatever
/// goes wrong on the way is said in full.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "rendezvous_server.hpp"

namespace parscale::distributed {

/// What a rank has once it is in.
struct Entered {
  Channel channel;
  Roster roster;
};

namespace detail {

inline std::string place(const Launch& launch) {
  return launch.master_address + " port " + std::to_string(launch.rendezvous_port());
}
inline std::string whose(const Launch& launch) {
  return "rank " + std::to_string(launch.rank) + " on " + host_name() + ", rendezvous at " + place(launch);
}

/// One attempt: the answer to our hello, or what came instead of one.
struct Answer {
  std::optional<Channel> channel = {};  ///< when we are welcome
  std::string trouble = {};             ///< when we are not
  bool foreign = false;                 ///< somebody is there, but not our run
};

inline Answer knock(const Launch& launch, const Address& address, Clock::time_point deadline) {
  Socket socket = connect_to(address, std::min(deadline, Clock::now() + std::chrono::seconds(3)));
  if (!socket.is_open()) return {.trouble = io::detail::words_for(errno)};
  Channel channel(std::move(socket));
  Message hello{Message::Kind::hello, {launch.run, std::to_string(launch.world)}};
  append(hello.texts, own_member(launch));
  channel.send(hello);
  const auto reply = channel.wait(std::min(deadline, Clock::now() + std::chrono::seconds(5)));
  if (reply && reply->kind == Message::Kind::welcome) return {.channel = std::move(channel)};
  if (reply && reply->kind == Message::Kind::refused && reply->texts.size() == 3)
    return {
        .trouble = "process " + reply->texts[2] + " on " + reply->texts[1] + " refused: " + reply->texts[0],
        .foreign = true};
  if (channel.is_open() || channel.is_stranger())
    return {.trouble = "what listens there is no rendezvous of parscale", .foreign = true};
  return {.trouble = "the connection was closed"};
}

/// After the welcome: waits until all are here. Rank 0 keeps the time and says who is missing.
inline Roster await_all(const Launch& launch, Channel& channel, Milliseconds join_timeout) {
  const auto message = channel.wait(Clock::now() + join_timeout + std::chrono::seconds(10));
  if (message && message->kind == Message::Kind::failed && message->texts.size() == 4) {
    const auto& t = message->texts;
    throw PeerError({.what = t[0], .where = t[1], .why = t[2], .remedy = t[3]});
  }
  if (!message || message->kind != Message::Kind::ready)
    throw PeerError({.what = "Rank 0 ended, or fell silent, while others were still awaited",
                     .where = whose(launch),
                     .remedy = "look at what rank 0 wrote"});
  Roster roster;
  for (std::size_t i = 0; i + 5 <= message->texts.size(); i += 5)
    roster.push_back(read_member(message->texts, i));
  return roster;
}

inline void check(const Launch& launch) {
  if (launch.master_address.empty())
    throw ConfigurationError(
        {.what = "Nobody said where rank 0 is",
         .where = "rank " + std::to_string(launch.rank) + ", started by " + launch.launcher,
         .remedy = "set MASTER_ADDR to its host name on every rank, for example: mpirun -x "
                   "MASTER_ADDR=$(hostname) ..."});
}

/// The socket for rank 0. A run on one host is reached from there alone. One on several hosts is not, even if
/// MASTER_ADDR seems to say so: many a host finds its own name at 127.0.1.1.
inline Socket listen_for(const Launch& launch) {
  const auto addresses = resolve(launch.master_address, launch.rendezvous_port());
  if (launch.local_world == launch.world && !addresses.empty() && addresses.front().is_loopback())
    return listen_at(addresses.front());
  return listen_everywhere(launch.rendezvous_port());
}

}  // namespace detail

/// Opens the meeting place. Throws PeerError when another program keeps the port, saying which if it knows.
inline std::unique_ptr<RendezvousServer> open_door(const Launch& launch, Milliseconds timeout,
                                                   const RendezvousOptions& options) {
  detail::check(launch);
  const auto deadline = Clock::now() + std::min(options.foreign_timeout, options.join_timeout);
  while (true) {
    Socket listener = detail::listen_for(launch);
    if (listener.is_open())
      return std::make_unique<RendezvousServer>(std::move(listener), launch, options.join_timeout, timeout);
    const int error = errno;
    if (error == EADDRINUSE && Clock::now() < deadline) {
      std::this_thread::sleep_for(Milliseconds(100));
      continue;
    }
    std::string why = io::detail::words_for(error);
    for (const Address& address : resolve(launch.master_address, launch.rendezvous_port()))
      if (const auto answer = detail::knock(launch, address, Clock::now() + std::chrono::seconds(2));
          answer.foreign)
        why += "; " + answer.trouble;
    throw PeerError(
        {.what = "The port of the rendezvous cannot be opened",
         .where = detail::whose(launch),
         .why = why,
         .remedy = "another job may use it: choose another MASTER_PORT (torchrun --master_port)"});
  }
}

/// Knocks until this rank is let in and all others are.
inline Entered enter(const Launch& launch, const RendezvousOptions& options) {
  detail::check(launch);
  const auto start = Clock::now();
  const auto deadline = start + options.join_timeout;
  const auto foreign_deadline = start + std::min(options.foreign_timeout, options.join_timeout);
  detail::Answer last{.trouble = "the name " + launch.master_address + " is unknown"};
  for (auto pause = Milliseconds(10); Clock::now() < (last.foreign ? foreign_deadline : deadline);
       pause = std::min(pause * 2, Milliseconds(500))) {
    for (const Address& address : resolve(launch.master_address, launch.rendezvous_port())) {
      last = detail::knock(launch, address, deadline);
      if (!last.channel) continue;
      Roster roster = detail::await_all(launch, *last.channel, options.join_timeout);
      return {std::move(*last.channel), std::move(roster)};
    }
    std::this_thread::sleep_for(std::min(pause, Milliseconds(until(deadline))));
  }
  throw PeerError(
      {.what = last.foreign ? "Rank 0 of this run is not where it should be" : "Rank 0 did not answer",
       .where = detail::whose(launch),
       .why = "tried for " + std::to_string((Clock::now() - start) / std::chrono::seconds(1)) +
              " s; at last: " + last.trouble,
       .remedy = "check that rank 0 runs, that every rank has the same MASTER_ADDR and MASTER_PORT, and "
                 "that the port can be reached"});
}

}  // namespace parscale::distributed
