/// A piece of code runs in a child process that stops at each of its system calls, where a test may look at
/// the call, make it fail, or kill the child. The code under test needs no hook for it: the parent is a tiny
/// debugger (ptrace).
#pragma once

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include <parscale/core/error.hpp>

namespace traced {

/// Runs `work` and turns its end into an exit code: 0, that of a parscale::Error, or 99.
inline int exit_code_of(const std::function<void()>& work) {
  try {
    work();
    return 0;
  } catch (const parscale::Error& error) {
    return error.exit_code();
  } catch (...) {
    return 99;
  }
}

/// The system calls by which a program changes files, and those that can fail while it does.
enum class CallKind { other, open, create, write, sync, close, rename, make_directory, remove, read };

/// A system call that the child is about to make.
class Call {
 public:
  Call(pid_t child, const __ptrace_syscall_info& info) : child_(child), info_(info) {}

  CallKind kind() const {
    switch (info_.entry.nr) {
#ifdef SYS_open
      case SYS_open:
        return (info_.entry.args[1] & O_CREAT) != 0 ? CallKind::create : CallKind::open;
      case SYS_rename:
        return CallKind::rename;
      case SYS_mkdir:
        return CallKind::make_directory;
      case SYS_unlink:
      case SYS_rmdir:
        return CallKind::remove;
#endif
      case SYS_openat:
        return (info_.entry.args[2] & O_CREAT) != 0 ? CallKind::create : CallKind::open;
      case SYS_renameat:
      case SYS_renameat2:
        return CallKind::rename;
      case SYS_mkdirat:
        return CallKind::make_directory;
      case SYS_unlinkat:
        return CallKind::remove;
      case SYS_write:
        return CallKind::write;
      case SYS_fsync:
        return CallKind::sync;
      case SYS_close:
        return CallKind::close;
      case SYS_read:
        return CallKind::read;
      default:
        return CallKind::other;
    }
  }

  /// The call and its paths in words, as in "rename a b".
  std::string text() const {
    switch (kind()) {
      case CallKind::create:
        return "create " + path_argument(info_.entry.nr == SYS_openat ? 1 : 0);
      case CallKind::sync:
        return "sync " + open_file(0);
      case CallKind::make_directory:
        return "mkdir " + path_argument(info_.entry.nr == SYS_mkdirat ? 1 : 0);
      case CallKind::rename:
        return rename_text();
      default:
        return {};
    }
  }

 private:
  std::string rename_text() const {
    const bool at = info_.entry.nr == SYS_renameat || info_.entry.nr == SYS_renameat2;
    return "rename " + path_argument(at ? 1 : 0) + " " + path_argument(at ? 3 : 1);
  }
  std::string open_file(std::size_t argument) const {
    const auto link = "/proc/" + std::to_string(child_) + "/fd/" + std::to_string(info_.entry.args[argument]);
    return std::filesystem::read_symlink(link).string();
  }
  /// Reads a string out of the child, byte by byte: it may end just before an unmapped page.
  std::string path_argument(std::size_t argument) const {
    std::string text;
    for (std::uint64_t address = info_.entry.args[argument];; ++address) {
      char c = 0;
      const iovec here{&c, 1}, there{reinterpret_cast<void*>(address), 1};
      if (::process_vm_readv(child_, &here, 1, &there, 1, 0) != 1 || c == '\0') return text;
      text += c;
    }
  }

  pid_t child_;
  __ptrace_syscall_info info_;
};

/// What shall happen at a call: it goes on, the child is killed first, or the call fails with this errno.
struct Fate {
  bool killed = false;
  int error = 0;
};

/// How a child ended.
struct End {
  bool killed = false;
  int exit_code = 0;
};

#if defined(__x86_64__)
inline constexpr bool calls_can_fail = true;
inline void skip_call(pid_t child) {
  ::ptrace(PTRACE_POKEUSER, child, offsetof(user_regs_struct, orig_rax), -1L);
}
inline void set_result(pid_t child, int error) {
  ::ptrace(PTRACE_POKEUSER, child, offsetof(user_regs_struct, rax), static_cast<long>(-error));
}
#else
inline constexpr bool calls_can_fail = false;
inline void skip_call(pid_t) {}
inline void set_result(pid_t, int) {}
#endif

/// Runs `work` in a child; `decide` is asked before each system call. Nothing when the system does not let
/// processes be traced.
inline std::optional<End> run(const std::function<void()>& work,
                              const std::function<Fate(const Call&)>& decide) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(98);
    ::raise(SIGSTOP);
    ::_exit(exit_code_of(work));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFSTOPPED(status)) return {};
  ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  int failing = 0;
  for (int signal = 0;;) {
    ::ptrace(PTRACE_SYSCALL, child, nullptr, static_cast<long>(signal));
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status)) return End{false, WEXITSTATUS(status)};
    if (WIFSIGNALED(status)) return End{true, 0};
    signal = WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(status);
    if (signal != 0) continue;
    __ptrace_syscall_info info{};
    ::ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info);
    if (info.op == PTRACE_SYSCALL_INFO_EXIT && failing != 0) set_result(child, std::exchange(failing, 0));
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) continue;
    const Fate fate = decide(Call(child, info));
    if (fate.killed) ::kill(child, SIGKILL);
    failing = fate.error;
    if (failing != 0) skip_call(child);
  }
}

/// Runs `work` in a child without tracing it and waits for its end.
inline End run_plainly(const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(exit_code_of(work));
  int status = 0;
  ::waitpid(child, &status, 0);
  return {WIFSIGNALED(status), WIFEXITED(status) ? WEXITSTATUS(status) : 0};
}

}  // namespace traced
