/// Runs a program under mpirun.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>

namespace parscale::test {

struct UnderMpirun {
  int status;        ///< 0: all is well
  double seconds;    ///< that it took
  std::string text;  ///< what all ranks wrote
};

/// As anybody, root and machines with few cores included; ended after a minute. Open MPI leaves memory behind
/// that nobody can free: AddressSanitizer shall not look for it.
inline UnderMpirun mpirun(int ranks, const std::string& program, const std::string& options = "") {
  const std::string command =
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
      "ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 timeout -k 1 60 mpirun --oversubscribe " +
      options + " -n " + std::to_string(ranks) + " " + program + " 2>&1";
  const auto start = std::chrono::steady_clock::now();
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  std::string text;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) text += static_cast<char>(c);
  const int status = ::pclose(pipe);
  return {status, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), text};
}

}  // namespace parscale::test
