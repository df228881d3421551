/// The same under mpirun: operations over MPI and over TCP, and ranks that die or stop.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <chrono>
#include <cstdio>
#include <string>

#include "support/thrown.hpp"

#ifdef PARSCALE_MPI_RANK

using parscale::test::contains;

namespace {

struct Result {
  int status;
  double seconds;
  std::string text;
};

/// Runs mpirun as anybody, root and machines with few cores included.
Result mpirun(int ranks, const std::string& arguments) {
  const std::string command =
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 timeout -k 1 60 mpirun --oversubscribe -n " +
      std::to_string(ranks) + " " + PARSCALE_MPI_RANK + " " + arguments + " 2>&1";
  const auto start = std::chrono::steady_clock::now();
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  std::string text;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) text += static_cast<char>(c);
  const int status = ::pclose(pipe);
  return {status, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), text};
}

}  // namespace

TEST_CASE("Every operation under mpirun gives the plain computation's bits", "[distributed]") {
  const int world = GENERATE(1, 2, 3, 5, 8);
  const std::string body = GENERATE("mpi", "tcp");
  const Result result = mpirun(world, body + " operations");
  INFO(result.text);
  CHECK(result.status == 0);
}

TEST_CASE("A rank that dies or stops under mpirun is named, and the run ends", "[distributed]") {
  const std::string fault = GENERATE("killed", "stopped", "exits");
  for (int victim = 0; victim < 3; ++victim) {
    const Result result = mpirun(3, "mpi " + fault + " " + std::to_string(victim));
    INFO(fault << ": " << result.text);
    CHECK(result.status != 0);
    CHECK(result.seconds < 10);
    // mpirun itself ends the others when it sees one die, often before they can speak; it names the rank,
    // too.
    CHECK((contains(result.text, "Rank " + std::to_string(victim) + " (process ") ||
           contains(result.text, "process rank " + std::to_string(victim)) ||
           contains(result.text, "mpirun has exited due to process rank " + std::to_string(victim))));
  }
}

#else

TEST_CASE("Ranks under mpirun", "[distributed]") { SKIP("built without the component mpi"); }

#endif
