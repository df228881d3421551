/// A connection with one other rank, and how far the exchange of the moment has got on it.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "socket.hpp"

namespace parscale::distributed {

class Link {
 public:
  explicit Link(Socket socket = Socket()) : socket_(std::move(socket)) {}

  int get() const { return socket_.get(); }

  /// From now on `out` goes to the peer and its piece comes to `in`. A header goes ahead of both: each side
  /// must be in the same exchange and mean the same size.
  void begin(std::uint64_t sequence, std::span<const std::byte> out, std::span<std::byte> in) {
    own_ = {sequence, out.size()};
    expected_ = {sequence, in.size()};
    sending_ = {iovec{&own_, sizeof(Header)}, iovec{const_cast<std::byte*>(out.data()), out.size()}};
    receiving_ = {iovec{&its_, sizeof(Header)}, iovec{in.data(), in.size()}};
  }

  bool is_over() const { return left(sending_) + left(receiving_) == 0; }
  short events() const {
    return static_cast<short>((left(sending_) == 0 ? 0 : POLLOUT) | (left(receiving_) == 0 ? 0 : POLLIN));
  }

  /// Moves what can be moved without waiting. Whether anything moved.
  bool advance() {
    bool moved = false;
    if (left(sending_) > 0)
      moved |= took(sending_, [this](msghdr& m) { return ::sendmsg(get(), &m, MSG_NOSIGNAL); });
    if (left(receiving_) > 0)
      moved |= took(receiving_, [this](msghdr& m) { return ::recvmsg(get(), &m, 0); });
    return moved;
  }

  /// The peer has closed, or the connection has broken.
  bool is_broken() const { return broken_; }
  /// The peer is in another exchange, or its piece has another size.
  bool disagrees() const {
    return receiving_[0].iov_len == 0 &&
           (its_.sequence != expected_.sequence || its_.bytes != expected_.bytes);
  }
  std::uint64_t bytes_announced() const { return its_.bytes; }
  std::uint64_t bytes_expected() const { return expected_.bytes; }

 private:
  struct Header {
    std::uint64_t sequence = 0, bytes = 0;
  };
  using Parts = std::array<iovec, 2>;  ///< what is left of the header and of the piece

  static std::size_t left(const Parts& parts) { return parts[0].iov_len + parts[1].iov_len; }

  /// Whether `call` has moved any of these parts.
  template <class Call>
  bool took(Parts& parts, Call call) {
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const ssize_t count = call(message);
    if (count <= 0) {
      broken_ |= count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
      return false;
    }
    auto moved = static_cast<std::size_t>(count);
    for (iovec& part : parts) {
      const std::size_t of_part = std::min(moved, part.iov_len);
      part = {static_cast<std::byte*>(part.iov_base) + of_part, part.iov_len - of_part};
      moved -= of_part;
    }
    return true;
  }

  Socket socket_;
  Header own_ = {}, its_ = {}, expected_ = {};
  Parts sending_ = {}, receiving_ = {};
  bool broken_ = false;
};

}  // namespace parscale::distributed
