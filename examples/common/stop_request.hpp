/// Being asked to stop: the first SIGINT, SIGTERM or SIGHUP is remembered, the second ends the program.
#pragma once

#include <csignal>

namespace parscale::program {

/// While it lives, a first signal only sets a flag, which the program looks at between two steps; a second
/// one has its usual effect at once. SIGPIPE is ignored meanwhile: a run outlives the reader of its output.
/// The destructor restores what was installed before. One object at a time.
class StopRequest {
 public:
  StopRequest();
  ~StopRequest();
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;

  /// Whether a signal has come.
  bool arrived() const noexcept;
  /// The signal that has come, 0 for none. A program that was stopped by it exits with 128 + signal.
  int signal() const noexcept;

 private:
  struct sigaction old_interrupt_ {
  }, old_terminate_{}, old_hangup_{}, old_pipe_{};
};

}  // namespace parscale::program
