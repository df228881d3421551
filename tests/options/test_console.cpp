/// What programs do around their work: exit codes, progress, signals.
#include <common/console.hpp>
#include <common/progress.hpp>
#include <common/stop_request.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <sstream>

#include "given.hpp"

using namespace parscale;
using namespace parscale::program;

namespace {

struct Outcome {
  int code = 0;
  std::string out = {};
  std::string errors = {};
};

std::string content_of(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// Runs a program's main in a child process of its own, with its output in files.
template <class Body>
Outcome run_program(Words words, Body body, const About& about = {.name = "parscale-test"}) {
  const TemporaryFolder folder;
  const auto out = folder.path() / "out", errors = folder.path() / "errors";
  std::fflush(nullptr);  // or the child would write what is still in the buffers once more
  const pid_t child = ::fork();
  if (child == 0) {
    const bool redirected = std::freopen(out.c_str(), "w", stdout) != nullptr &&
                            std::freopen(errors.c_str(), "w", stderr) != nullptr;
    std::vector<char*> argv{const_cast<char*>("parscale-test")};
    for (std::string& word : words) argv.push_back(word.data());
    const int code = run_main(static_cast<int>(argv.size()), argv.data(), about, body);
    std::fflush(nullptr);
    ::_exit(redirected ? code : 99);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), content_of(out),
          content_of(errors)};
}

template <class Exception>
Outcome run_throwing(const Exception& exception) {
  return run_program({}, [&](const Words&) -> int { throw exception; });
}

}  // namespace

TEST_CASE("A program returns what its body returns, which sees the words") {
  const Outcome outcome = run_program({"a", "b"}, [](const Words& words) {
    return words == Words{"a", "b"} ? 7 : 1;
  });
  CHECK(outcome.code == 7);
  CHECK(outcome.errors.empty());
}

TEST_CASE("Each kind of error has its exit code and says its message") {
  CHECK(run_throwing(ConfigurationError({.what = "x"})).code == 2);
  CHECK(run_throwing(InputError({.what = "x"})).code == 3);
  CHECK(run_throwing(StorageError({.what = "x"})).code == 4);
  CHECK(run_throwing(PeerError({.what = "x"})).code == 5);
  CHECK(run_throwing(NumericError({.what = "x"})).code == 6);
  CHECK(run_throwing(NumericError({.what = "the loss", .where = "step 3"})).errors ==
        "error: the loss\n  where: step 3\n");
}

TEST_CASE("Errors of the file system, of memory and unforeseen ones are told apart") {
  const std::filesystem::filesystem_error files("rename", "/a",
                                                std::make_error_code(std::errc::no_space_on_device));
  CHECK(run_throwing(files).code == 4);
  CHECK(contains(run_throwing(std::bad_alloc()).errors, "not enough memory"));
  CHECK(contains(run_throwing(std::runtime_error("odd")).errors, "odd"));
  CHECK(run_throwing(3).code == 1);
}

TEST_CASE("--help and --version go to standard output and succeed") {
  const About about{.name = "parscale-test", .help = [] { return std::string("how to use it\n"); }};
  const auto never = [](const Words&) { return 9; };
  const Outcome help = run_program({"training.seed=1", "--help"}, never, about);
  CHECK(help.code == 0);
  CHECK(help.out == "how to use it\n");
  const Outcome version = run_program({"--version"}, never, about);
  CHECK(version.code == 0);
  CHECK(version.out.starts_with("parscale-test "));
}

TEST_CASE("CLI11's errors are configuration errors, and its help is help") {
  const auto body = [](const Words& words) {
    CLI::App app("about this");
    int n = 0;
    app.add_option("-n", n)->required();
    parse_command_line(app, words);
    return n;
  };
  CHECK(run_program({"-n", "5"}, body).code == 5);
  CHECK(run_program({"-n", "x"}, body).code == 2);
  CHECK(run_program({}, body).code == 2);
  const Outcome help = run_program({"--help"}, body);
  CHECK(help.code == 0);
  CHECK(contains(help.out, "about this"));
}

TEST_CASE("Where there is no terminal there are no colours and no bar") {
  const Outcome outcome = run_program({}, [](const Words&) {
    print_warning("careful");
    double now = 0;
    Progress progress({.total_steps = 10, .tokens_a_step = 100, .out = stdout, .clock = [&] { return now; }});
    for (Index step = 1; step <= 5; ++step) {
      now += 2;
      progress.advance(step);
    }
    progress.log({.step = 5, .loss = 3.25, .gradient_norm = 0.5, .learning_rate = 3e-4});
    progress.say("evaluation");
    return 0;
  });
  CHECK(outcome.errors == "warning: careful\n");
  CHECK(outcome.out.starts_with("step  5/10  loss 3.2500  grad 0.5  lr 0.0003  50 tok/s  "));
  CHECK(contains(outcome.out, "  10 s left\nevaluation\n"));
  CHECK_FALSE(contains(outcome.out, "\x1b"));
}

TEST_CASE("Time that is skipped counts neither for the rate nor for the time left") {
  double now = 0;
  std::FILE* nowhere = std::fopen("/dev/null", "w");
  {
    Progress progress(
        {.total_steps = 10, .tokens_a_step = 100, .first_step = 4, .out = nowhere, .clock = [&] {
           return now;
         }});
    CHECK(progress.seconds_left() < 0);
    CHECK(progress.tokens_per_second() == 0);
    now = 1;
    progress.advance(5);
    now = 500;
    progress.skip_time();
    now = 501;
    progress.advance(6);
    CHECK(progress.tokens_per_second() == 100);
    CHECK(progress.seconds_left() == 4);
  }
  std::fclose(nowhere);
}

TEST_CASE("A run goes on when nobody reads its output any more") {
  const StopRequest stop;
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ::close(ends[0]);
  std::FILE* closed = ::fdopen(ends[1], "w");
  {
    Progress progress({.total_steps = 2, .tokens_a_step = 1, .out = closed});
    progress.advance(1);
    progress.log({.step = 1});
    progress.say("still here");
  }
  std::fclose(closed);
  CHECK_FALSE(stop.arrived());
}

TEST_CASE("Numbers for people are short") {
  CHECK(write_bytes(820ull << 20) == "820 MiB");
  CHECK(write_bytes(3ull << 29) == "1.50 GiB");
  CHECK(write_duration(3.4) == "3 s");
  CHECK(write_duration(250) == "4 min 10 s");
  CHECK(write_duration(7500) == "2 h 05 min");
  CHECK(write_duration(3 * 86400 + 4 * 3600) == "3 d 4 h");
  CHECK(write_count(950) == "950");
  CHECK(write_count(12345) == "12.3k");
  CHECK(write_count(999600) == "1M");
  CHECK(peak_memory() > (1u << 20));
}

TEST_CASE("The first signal is remembered, and the old handlers come back") {
  struct sigaction before {
  }, after{};
  ::sigaction(SIGTERM, nullptr, &before);
  {
    const StopRequest stop;
    CHECK_FALSE(stop.arrived());
    ::raise(SIGTERM);
    CHECK(stop.arrived());
    CHECK(stop.signal() == SIGTERM);
  }
  ::sigaction(SIGTERM, nullptr, &after);
  CHECK(before.sa_handler == after.sa_handler);
  CHECK_FALSE(StopRequest().arrived());
}

TEST_CASE("The second signal ends the program at once") {
  const Outcome outcome = run_program({}, [](const Words&) {
    const StopRequest stop;
    ::raise(SIGINT);
    ::raise(SIGTERM);
    return 0;
  });
  CHECK(outcome.code == 128 + SIGTERM);
  CHECK(contains(outcome.errors, "stopping after this step"));
}
