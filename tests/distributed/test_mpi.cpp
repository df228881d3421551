/// The same under mpirun: operations over MPI and over TCP, and ranks that die or stop, in operations and in
/// training.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <string>

#include "../support/mpirun.hpp"
#include "../support/thrown.hpp"
#include "failing_training.hpp"

#ifdef PARSCALE_MPI_RANK

using namespace parscale;
using namespace parscale::test;

namespace {

const std::string rank_program = PARSCALE_MPI_RANK;

/// mpirun itself ends the others when it sees one die, often before they can speak; it names the rank, too.
bool names(const std::string& text, int victim) {
  const std::string rank = std::to_string(victim);
  return contains(text, "Rank " + rank + " (process ") || contains(text, "process rank " + rank) ||
         contains(text, "mpirun has exited due to process rank " + rank);
}

/// One rank of three fails at a place of training or saving; then the run goes on.
void check_training(const std::filesystem::path& undisturbed, const std::string& fault, Index place,
                    int victim) {
  const Folder folder("under-mpirun");
  const UnderMpirun run = mpirun(3, rank_program + " mpi training " + std::to_string(victim) + " " + fault +
                                        " " + std::to_string(place) + " " + folder.path.string());
  INFO("rank " << victim << " " << fault << " at place " << place << ": " << run.text);
  CHECK(run.status != 0);
  CHECK(run.seconds < 10);
  CHECK(names(run.text, victim));
  train_on_threads(3, faulty_run(), folder.path);
  CHECK(same_end(faulty_run(), undisturbed, folder.path));
}

}  // namespace

TEST_CASE("Every operation under mpirun gives the plain computation's bits", "[distributed]") {
  const int world = GENERATE(1, 2, 3, 5, 8);
  const std::string body = GENERATE("mpi", "tcp");
  const UnderMpirun run = mpirun(world, rank_program + " " + body + " operations");
  INFO(run.text);
  CHECK(run.status == 0);
}

TEST_CASE("A rank that dies or stops under mpirun is named, and the run ends", "[distributed]") {
  const std::string fault = GENERATE("killed", "stopped", "exits");
  for (int victim = 0; victim < 3; ++victim) {
    const UnderMpirun run = mpirun(3, rank_program + " mpi " + fault + " " + std::to_string(victim));
    INFO(fault << ": " << run.text);
    CHECK(run.status != 0);
    CHECK(run.seconds < 10);
    CHECK(names(run.text, victim));
  }
}

TEST_CASE("A rank that fails in training or saving under mpirun is named, and the run goes on",
          "[distributed]") {
  const Folder undisturbed("undisturbed-by-mpirun");
  const auto places = static_cast<Index>(train_on_threads(3, faulty_run(), undisturbed.path).size());
  const char* const faults[] = {"killed", "stopped", "exits"};
  for (Index i = 0; i < 9; ++i)  // spread over the step, each fault on each rank
    check_training(undisturbed.path, faults[i / 3], i * (places - 1) / 8, static_cast<int>(i % 3));
}

TEST_CASE("Every fault at every place of each rank under mpirun", "[distributed][.long]") {
  const Folder undisturbed("undisturbed-by-mpirun");
  const auto places = static_cast<Index>(train_on_threads(3, faulty_run(), undisturbed.path).size());
  for (const char* const fault : {"killed", "stopped", "exits"})
    for (Index place = 0; place < places; ++place)
      for (int victim = 0; victim < 3; ++victim) check_training(undisturbed.path, fault, place, victim);
}

#else

TEST_CASE("Ranks under mpirun", "[distributed]") { SKIP("built without the component mpi"); }

#endif
