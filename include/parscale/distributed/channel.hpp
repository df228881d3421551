/// Messages over a socket: a kind and some texts. Nothing here blocks; whoever owns a channel polls it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "socket.hpp"

namespace parscale::distributed {

/// What ranks and the rendezvous say to each other. Numbers travel as texts: few and seldom.
struct Message {
  enum class Kind : std::uint8_t {
    hello,    ///< rank -> rendezvous: who I am
    welcome,  ///< rendezvous -> rank: you are in, wait for the others
    refused,  ///< rendezvous -> rank: why you are not
    ready,    ///< rendezvous -> rank: all are here, and who they are
    gather,   ///< rank -> rendezvous: my text; rendezvous -> rank: those of all
    beat,     ///< both ways: I live, and what I do
    failed,   ///< both ways: the run has failed, and why
    leave,    ///< rank -> rendezvous: I end, all is well
  };
  Kind kind = Kind::beat;
  std::vector<std::string> texts = {};
};

class Channel {
 public:
  /// Every conversation begins with this, so that strangers are told from ranks at once.
  static constexpr std::string_view greeting = "parscale-1\n";

  explicit Channel(Socket socket) : socket_(std::move(socket)) { outgoing_ = greeting; }

  int get() const { return socket_.get(); }
  const Socket& socket() const { return socket_; }
  /// False once the peer has closed, the connection has broken, or the peer has said what makes no sense.
  bool is_open() const { return open_; }
  /// Whether the peer has said anything that is not of our kind.
  bool is_stranger() const { return stranger_; }
  short events() const { return static_cast<short>(outgoing_.empty() ? POLLIN : POLLIN | POLLOUT); }

  /// Sends now what the system takes, the rest by transfer().
  void send(const Message& message) {
    std::string body(1, static_cast<char>(message.kind));
    for (const std::string& text : message.texts) append(body, text);
    append(outgoing_, body);
    flush();
  }

  /// Moves what can be moved without waiting.
  void transfer() {
    flush();
    std::array<char, 1 << 16> piece;
    while (open_) {
      const ssize_t count = ::recv(socket_.get(), piece.data(), piece.size(), 0);
      if (count > 0)
        incoming_.append(piece.data(), static_cast<std::size_t>(count));
      else if (count < 0 && errno == EINTR)
        continue;
      else if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        break;
      else
        open_ = false;
    }
  }

  /// The next message that has arrived whole.
  std::optional<Message> next() {
    if (!greeted_ && !take_greeting()) return std::nullopt;
    std::string_view rest = incoming_;
    std::string_view body;
    if (!take(rest, body)) return std::nullopt;
    Message message;
    if (body.empty() ||
        static_cast<std::uint8_t>(body[0]) > static_cast<std::uint8_t>(Message::Kind::leave)) {
      refuse();
      return std::nullopt;
    }
    message.kind = static_cast<Message::Kind>(body[0]);
    body.remove_prefix(1);
    for (std::string_view text; take(body, text);) message.texts.emplace_back(text);
    incoming_.erase(0, incoming_.size() - rest.size());
    return message;
  }

  /// Waits for the next message. Nothing when the time is over or the channel has closed.
  std::optional<Message> wait(Clock::time_point deadline) {
    while (true) {
      if (auto message = next()) return message;
      if (!open_) return std::nullopt;
      pollfd item{get(), events(), 0};
      if (::poll(&item, 1, until(deadline)) == 0) return std::nullopt;
      transfer();
    }
  }

 private:
  /// What is longer is no message of ours.
  static constexpr std::uint32_t longest = 1U << 28;

  static void append(std::string& to, std::string_view text) {
    const auto size = static_cast<std::uint32_t>(text.size());
    for (unsigned shift = 0; shift < 32; shift += 8) to += static_cast<char>(size >> shift & 0xffU);
    to += text;
  }
  /// Cuts a text with its length off `from`; false when it is not all there.
  bool take(std::string_view& from, std::string_view& text) {
    if (from.size() < 4) return false;
    std::uint32_t size = 0;
    for (unsigned i = 0; i < 4; ++i) size |= std::uint32_t{static_cast<unsigned char>(from[i])} << 8 * i;
    if (size > longest) refuse();
    if (size > longest || from.size() - 4 < size) return false;
    text = from.substr(4, size);
    from.remove_prefix(4 + size);
    return true;
  }
  bool take_greeting() {
    const std::string_view seen = std::string_view(incoming_).substr(0, greeting.size());
    if (seen != greeting.substr(0, seen.size())) refuse();
    if (seen.size() < greeting.size() || stranger_) return false;
    incoming_.erase(0, greeting.size());
    return greeted_ = true;
  }
  void refuse() {
    stranger_ = true;
    open_ = false;
    incoming_.clear();
  }
  void flush() {
    while (open_ && !outgoing_.empty()) {
      const ssize_t count = ::send(socket_.get(), outgoing_.data(), outgoing_.size(), MSG_NOSIGNAL);
      if (count > 0)
        outgoing_.erase(0, static_cast<std::size_t>(count));
      else if (count < 0 && errno == EINTR)
        continue;
      else if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        break;
      else
        open_ = false;
    }
  }

  Socket socket_;
  std::string incoming_, outgoing_;
  bool open_ = true, greeted_ = false, stranger_ = false;
};

}  // namespace parscale::distributed
