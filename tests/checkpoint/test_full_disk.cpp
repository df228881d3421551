// A disk that really is full: a tiny file system of our own where the system allows mounting one, and a limit
// on the size of files where it does not.
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <catch2/catch_test_macros.hpp>

#include "sample.hpp"
#include "traced_child.hpp"

using namespace sample;

namespace {

constexpr int cannot_mount = 50;

void expect(bool holds, const char* claim) {
  if (!holds) throw std::runtime_error(std::string(claim) + " does not hold");
}

/// Runs `work` in a child on a file system of `kibibytes`, mounted on `directory` for the child's eyes only.
int on_small_disk(const fs::path& directory, Index kibibytes, const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool isolated = ::unshare(CLONE_NEWNS) == 0 || ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
    const std::string size = "size=" + std::to_string(kibibytes) + "k";
    if (!isolated || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", directory.c_str(), "tmpfs", 0, size.c_str()) != 0)
      ::_exit(cannot_mount);
    try {
      work();
      ::_exit(0);
    } catch (const std::exception& error) {
      ::write(2, error.what(), std::string(error.what()).size());
      ::_exit(1);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// Saves checkpoint 2 beside checkpoint 1 on a disk too small for both, and looks at everything that follows.
void fill_the_disk(const fs::path& parent, bool say_size) {
  save(parent, 1);
  std::string message;
  try {
    save(parent, 2, {.keep = 1, .say_size = say_size});
  } catch (const parscale::StorageError& error) {
    message = error.what();
  }
  expect(!message.empty(), "saving fails");
  expect(message.find("checkpoint-2 was not saved") != message.npos, "the message says what was not saved");
  expect(message.find("are needed") != message.npos, "the message says how much is needed");
  expect(message.find("are available") != message.npos, "the message says how much is available");
  if (say_size) expect(message.find("820.3 KiB are needed") != message.npos, "the figure is right");
  expect(names_in(parent) == std::set<std::string>{"checkpoint-1"}, "nothing is left of the failed save");
  expect(good_step(parent) == 1, "the older checkpoint is untouched");
}

void limit_file_size(rlim_t bytes) {
  const rlimit limit{bytes, bytes};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  ::signal(SIGXFSZ, SIG_IGN);
}

}  // namespace

TEST_CASE("A disk that is too small is refused before it is filled") {
  const TemporaryDirectory directory;
  const int end = on_small_disk(directory.path(), 1000, [&] { fill_the_disk(directory.path(), true); });
  if (end == cannot_mount) SKIP("this user may not mount a small file system");
  REQUIRE(end == 0);
}

TEST_CASE("A disk that fills up while a checkpoint is written costs that checkpoint only") {
  const TemporaryDirectory directory;
  for (Index kibibytes = 880; kibibytes <= 1640; kibibytes += 95) {
    INFO("a disk of " << kibibytes << " KiB");
    const int end =
        on_small_disk(directory.path(), kibibytes, [&] { fill_the_disk(directory.path(), false); });
    if (end == cannot_mount) SKIP("this user may not mount a small file system");
    REQUIRE(end == 0);
  }
}

TEST_CASE("A run goes on saving when a full disk has room again") {
  const TemporaryDirectory directory;
  const fs::path& parent = directory.path();
  const int end = on_small_disk(parent, 2000, [&] {
    save(parent, 1);
    write_text(parent / "ballast", std::string(900'000, 'x'));
    expect(traced::exit_code_of([&] { save(parent, 2, {.keep = 1}); }) == 4, "the full disk is met");
    fs::remove(parent / "ballast");
    save(parent, 3, {.keep = 1});
    expect(good_step(parent) == 3, "the next one is saved");
  });
  if (end == cannot_mount) SKIP("this user may not mount a small file system");
  REQUIRE(end == 0);
}

TEST_CASE("A file that may not grow any further costs the new checkpoint only") {
  const TemporaryDirectory directory;
  save(directory.path(), 1);
  for (rlim_t bytes : {0u, 1u, 1000u, 280'000u, 300'000u}) {
    INFO("files may have " << bytes << " bytes");
    const auto end = traced::run_plainly([&] {
      limit_file_size(bytes);
      save(directory.path(), 2, {.keep = 1});
    });
    REQUIRE(end.exit_code == 4);
    REQUIRE(names_in(directory.path()) == std::set<std::string>{"checkpoint-1"});
    REQUIRE(good_step(directory.path()) == 1);
  }
}

TEST_CASE("An output directory that may not be written to is a storage error that says so") {
  const TemporaryDirectory directory;
  fs::permissions(directory.path(), fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_all);
  fs::create_directory(directory.path() / "output");
  fs::permissions(directory.path() / "output", fs::perms::owner_read | fs::perms::owner_exec);
  const auto end = traced::run_plainly([&] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) return;
    save(directory.path() / "output", 1);
  });
  REQUIRE(end.exit_code == 4);
}
