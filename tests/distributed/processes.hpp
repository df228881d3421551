/// Ranks that are child processes of a test: forked, so that a test's code is the rank's code; watched by a
/// clock, so that a test that hangs fails instead.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <parscale/distributed/rendezvous.hpp>
#include <string>
#include <thread>
#include <vector>

namespace parscale::test {

using namespace parscale::distributed;

/// A port that was free a moment ago, for the rendezvous.
inline int free_port() {
  const Socket socket = listen_at(resolve("127.0.0.1", 0).front());
  return own_address(socket).port();
}

/// What a launcher would say, for a run on this host.
inline Launch launch_of(int rank, int world, int port, const std::string& run = "a test") {
  return {.rank = rank,
          .world = world,
          .local_rank = rank,
          .local_world = world,
          .master_address = "127.0.0.1",
          .master_port = port - 1,
          .run = run,
          .launcher = "a test"};
}

/// How a child ended.
struct Ended {
  int code = 0;      ///< its exit code, or 128 + the signal that killed it
  double after = 0;  ///< seconds since its start
  std::string text;  ///< the message of the exception that ended it
};

class Child {
 public:
  explicit Child(const std::function<void()>& work) : output_(std::tmpfile()) {
    process_ = ::fork();
    if (process_ == 0) ::_exit(run(work));
  }
  Child(const Child&) = delete;
  Child(Child&& other) noexcept
      : output_(std::exchange(other.output_, nullptr)),
        process_(std::exchange(other.process_, 0)),
        start_(other.start_) {}
  ~Child() {
    if (process_ > 0) kill(SIGKILL), wait();
    if (output_ != nullptr) std::fclose(output_);
  }

  pid_t process() const { return process_; }
  void kill(int signal) const { ::kill(process_, signal); }

  /// Waits for its end; kills it after `limit` seconds.
  Ended wait(double limit = 30) {
    int status = 0;
    while (::waitpid(process_, &status, WNOHANG) == 0) {
      if (seconds() > limit) kill(SIGKILL);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    process_ = 0;
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), seconds(), read()};
  }

 private:
  int run(const std::function<void()>& work) {
    try {
      work();
      return 0;
    } catch (const Error& error) {
      std::fputs(error.what(), output_);
      std::fflush(output_);
      return error.exit_code();
    } catch (const std::exception& error) {
      std::fputs(error.what(), output_);
      std::fflush(output_);
      return 99;
    }
  }
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  std::string read() const {
    std::string text(1 << 16, '\0');
    std::rewind(output_);
    text.resize(std::fread(text.data(), 1, text.size(), output_));
    return text;
  }

  std::FILE* output_;
  pid_t process_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// `world` children, each running work(rank); how they ended.
inline std::vector<Ended> run_children(int world, const std::function<void(int)>& work, double limit = 30) {
  std::vector<Child> children;
  for (int rank = 0; rank < world; ++rank) children.emplace_back([&work, rank] { work(rank); });
  std::vector<Ended> ended;
  for (Child& child : children) ended.push_back(child.wait(limit));
  return ended;
}

}  // namespace parscale::test
