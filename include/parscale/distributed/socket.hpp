/// TCP sockets as far as ranks need them: IPv4 and IPv6, never blocking, closed by themselves.
#pragma once

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "../io/file.hpp"

namespace parscale::distributed {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;
using Socket = io::detail::FileDescriptor;

/// Milliseconds for poll(2) until then, at least 0 and at most `most`.
inline int until(Clock::time_point deadline, Milliseconds most = std::chrono::hours(1)) {
  const auto left = std::chrono::ceil<Milliseconds>(deadline - Clock::now());
  return static_cast<int>(std::clamp(left, Milliseconds(0), most).count());
}

/// An address as the system has it.
struct Address {
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_storage);

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  bool is_loopback() const {
    if (storage.ss_family == AF_INET6)
      return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr);
    return storage.ss_family == AF_INET &&
           ntohl(reinterpret_cast<const sockaddr_in&>(storage).sin_addr.s_addr) >> 24 == 127;
  }
  int port() const {
    return ntohs(storage.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(storage).sin6_port
                                               : reinterpret_cast<const sockaddr_in&>(storage).sin_port);
  }
  void set_port(int port) {
    const auto network = htons(static_cast<std::uint16_t>(port));
    if (storage.ss_family == AF_INET6)
      reinterpret_cast<sockaddr_in6&>(storage).sin6_port = network;
    else
      reinterpret_cast<sockaddr_in&>(storage).sin_port = network;
  }
};

/// All addresses of a host, IPv4 and IPv6. Empty when the name is unknown (for now: name servers come late).
inline std::vector<Address> resolve(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return {};
  std::vector<Address> addresses;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Address address;
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    address.size = at->ai_addrlen;
    addresses.push_back(address);
  }
  ::freeaddrinfo(found);
  return addresses;
}

inline std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

namespace detail {

inline Socket new_socket(int family) {
  return Socket(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}
inline void set_option(const Socket& socket, int level, int name, int value) {
  ::setsockopt(socket.get(), level, name, &value, sizeof value);
}
/// Small messages leave at once; a host that is gone (one that is merely stopped still acknowledges) is
/// noticed in 8 s.
inline void prepare(const Socket& socket) {
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, 8000);
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, 4);
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, 2);
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, 2);
}

}  // namespace detail

/// Listens at this address; port 0 takes a free one. On failure the socket is not open and errno says why.
inline Socket listen_at(const Address& address) {
  Socket socket = detail::new_socket(address.storage.ss_family);
  if (!socket.is_open()) return socket;
  detail::set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
  if (address.storage.ss_family == AF_INET6) detail::set_option(socket, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (::bind(socket.get(), address.get(), address.size) == 0 && ::listen(socket.get(), SOMAXCONN) == 0)
    return socket;
  const int error = errno;
  socket = Socket();
  errno = error;
  return socket;
}

/// Every address of this host, IPv6 and IPv4 through one socket where the system has both.
inline Socket listen_everywhere(int port) {
  Address any;
  any.storage.ss_family = AF_INET6;  // all zeros: any address
  any.size = sizeof(sockaddr_in6);
  any.set_port(port);
  Socket socket = listen_at(any);
  if (socket.is_open() || errno == EADDRINUSE) return socket;
  any.storage.ss_family = AF_INET;
  any.size = sizeof(sockaddr_in);
  any.set_port(port);
  return listen_at(any);
}

inline Address own_address(const Socket& socket) {
  Address address;
  ::getsockname(socket.get(), address.get(), &address.size);
  return address;
}
inline Address peer_address(const Socket& socket) {
  Address address;
  ::getpeername(socket.get(), address.get(), &address.size);
  return address;
}
/// "10.0.0.7" or "fe80::1%eth0".
inline std::string to_string(const Address& address) {
  std::array<char, NI_MAXHOST> text{};
  ::getnameinfo(address.get(), address.size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST);
  return text.data();
}

/// A connection that somebody made to a listening socket, if there is one.
inline Socket accept_from(const Socket& listener) {
  Socket socket(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (socket.is_open()) detail::prepare(socket);
  return socket;
}

/// Waits for an event of one socket. False when the time is over.
inline bool wait_for(const Socket& socket, short events, Clock::time_point deadline) {
  pollfd item{socket.get(), events, 0};
  while (true) {
    const int count = ::poll(&item, 1, until(deadline));
    if (count > 0) return true;
    if (Clock::now() >= deadline) return false;
  }
}

/// Connects until the deadline. On failure the socket is not open and errno says why.
inline Socket connect_to(const Address& address, Clock::time_point deadline) {
  Socket socket = detail::new_socket(address.storage.ss_family);
  if (!socket.is_open()) return socket;
  int error = ::connect(socket.get(), address.get(), address.size) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    error = ETIMEDOUT;
    socklen_t size = sizeof error;
    if (wait_for(socket, POLLOUT, deadline)) ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error != 0) socket = Socket();
  errno = error;
  if (socket.is_open()) detail::prepare(socket);
  return socket;
}

/// Wakes a thread that waits in poll(2).
class Waker {
 public:
  Waker() : event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  void wake() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(event_.get(), &one, sizeof one);
  }
  void clear() const {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(event_.get(), &count, sizeof count);
  }
  int get() const { return event_.get(); }

 private:
  Socket event_;
};

}  // namespace parscale::distributed
