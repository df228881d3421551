#include "stop_request.hpp"

#include <unistd.h>

#include <cerrno>
#include <initializer_list>

namespace parscale::program {
namespace {

volatile std::sig_atomic_t arrived_signal = 0;

void set(int signal, void (*handler)(int), struct sigaction* old = nullptr) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  ::sigaction(signal, &action, old);
}

/// Runs inside of a signal: only async-signal-safe calls.
void remember(int signal) {
  const int error = errno;
  arrived_signal = signal;
  for (const int each : {SIGINT, SIGTERM, SIGHUP}) set(each, SIG_DFL);
  constexpr char words[] = "\nstopping after this step; once more ends at once, without saving\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, words, sizeof words - 1);
  errno = error;
}

}  // namespace

StopRequest::StopRequest() {
  arrived_signal = 0;
  set(SIGINT, remember, &old_interrupt_);
  set(SIGTERM, remember, &old_terminate_);
  set(SIGHUP, remember, &old_hangup_);
  set(SIGPIPE, SIG_IGN, &old_pipe_);
  if (old_hangup_.sa_handler == SIG_IGN) set(SIGHUP, SIG_IGN);  // started by nohup
}

StopRequest::~StopRequest() {
  ::sigaction(SIGINT, &old_interrupt_, nullptr);
  ::sigaction(SIGTERM, &old_terminate_, nullptr);
  ::sigaction(SIGHUP, &old_hangup_, nullptr);
  ::sigaction(SIGPIPE, &old_pipe_, nullptr);
}

bool StopRequest::arrived() const noexcept { return arrived_signal != 0; }
int StopRequest::signal() const noexcept { return arrived_signal; }

}  // namespace parscale::program
