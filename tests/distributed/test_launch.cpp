/// What each launcher's environment says, and what is wrong with it.
#include <catch2/catch_test_macros.hpp>

#include <map>
#include <parscale/distributed/launch.hpp>
#include <parscale/distributed/roster.hpp>

#include "support/thrown.hpp"

using namespace parscale;
using namespace parscale::distributed;

namespace {

using Variables = std::map<std::string, std::string>;

Launch launch_from(const Variables& variables) {
  return read_launch([&](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

const Variables torchrun{{"RANK", "5"},
                         {"WORLD_SIZE", "8"},
                         {"LOCAL_RANK", "1"},
                         {"LOCAL_WORLD_SIZE", "4"},
                         {"MASTER_ADDR", "node0"},
                         {"MASTER_PORT", "29500"},
                         {"TORCHELASTIC_RUN_ID", "none"},
                         {"TORCHELASTIC_RESTART_COUNT", "0"}};
const Variables openmpi{{"OMPI_COMM_WORLD_RANK", "2"},
                        {"OMPI_COMM_WORLD_SIZE", "4"},
                        {"OMPI_COMM_WORLD_LOCAL_RANK", "2"},
                        {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                        {"PMIX_NAMESPACE", "1234"}};
const Variables slurm{{"SLURM_PROCID", "6"},  {"SLURM_STEP_NUM_TASKS", "11"},
                      {"SLURM_LOCALID", "2"}, {"SLURM_STEP_TASKS_PER_NODE", "4(x2),3"},
                      {"SLURM_NODEID", "1"},  {"SLURM_STEP_NODELIST", "gpu[07-08,12]"},
                      {"SLURM_JOB_ID", "99"}, {"SLURM_STEP_ID", "1"}};

}  // namespace

TEST_CASE("Nobody's environment is one rank", "[distributed]") {
  const Launch launch = launch_from({});
  CHECK((launch.rank == 0 && launch.world == 1 && !launch.distributed()));
}

TEST_CASE("torchrun, and accelerate which uses it", "[distributed]") {
  const Launch launch = launch_from(torchrun);
  CHECK((launch.rank == 5 && launch.world == 8 && launch.local_rank == 1 && launch.local_world == 4));
  CHECK((launch.master_address == "node0" && launch.rendezvous_port() == 29501));
  CHECK(launch.launcher == "torchrun");
  CHECK(launch.run != launch_from(with(torchrun, {{"TORCHELASTIC_RESTART_COUNT", "1"}})).run);
}

TEST_CASE("mpirun by OpenMPI on one host needs no address; every rank guesses the same port",
          "[distributed]") {
  const Launch launch = launch_from(openmpi);
  CHECK((launch.rank == 2 && launch.world == 4 && launch.local_rank == 2 && launch.local_world == 4));
  CHECK(launch.master_address == "127.0.0.1");
  CHECK(launch.master_port == launch_from(with(openmpi, {{"OMPI_COMM_WORLD_RANK", "0"}})).master_port);
  CHECK(launch.master_port != launch_from(with(openmpi, {{"PMIX_NAMESPACE", "1235"}})).master_port);
  CHECK(launch_from(with(openmpi, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "3"}})).master_address.empty());
}

TEST_CASE("mpirun by PMI", "[distributed]") {
  const Launch launch =
      launch_from({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "0"}, {"MPI_LOCALNRANKS", "1"}});
  CHECK((launch.rank == 1 && launch.world == 2 && launch.local_rank == 0 && launch.local_world == 1));
}

TEST_CASE("srun; a batch script outside it is one process", "[distributed]") {
  const Launch launch = launch_from(slurm);
  CHECK((launch.rank == 6 && launch.world == 11 && launch.local_rank == 2 && launch.local_world == 4));
  CHECK(launch.master_address == "gpu07");
  const Variables last{{"SLURM_PROCID", "8"}, {"SLURM_LOCALID", "0"}, {"SLURM_NODEID", "2"}};
  CHECK(launch_from(with(slurm, last)).local_world == 3);
  CHECK(launch_from(with(slurm, {{"SLURM_STEP_NODELIST", "a,b"}})).master_address == "a");
  CHECK(launch_from({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_JOB_ID", "99"}}).world == 1);
}

TEST_CASE("torchrun inside srun or mpirun wins", "[distributed]") {
  CHECK(launch_from(with(with(slurm, openmpi), torchrun)).rank == 5);
  CHECK(launch_from(with(slurm, openmpi)).launcher == "mpirun");
}

TEST_CASE("Contradictions are named", "[distributed]") {
  const auto says = [](const Variables& variables, const std::string& words) {
    const auto message = test::thrown<ConfigurationError>([&] { launch_from(variables); });
    INFO(message);
    CHECK(message.find(words) != std::string::npos);
  };
  says({{"RANK", "0"}}, "RANK is set and WORLD_SIZE is not");
  says({{"WORLD_SIZE", "2"}}, "WORLD_SIZE is set and RANK is not");
  says(with(torchrun, {{"RANK", "8"}}), "RANK=8 with WORLD_SIZE=8");
  says(with(torchrun, {{"RANK", "-1"}}), "RANK is \"-1\"");
  says(with(torchrun, {{"WORLD_SIZE", "eight"}}), "WORLD_SIZE is \"eight\"");
  says(with(torchrun, {{"LOCAL_RANK", "4"}}), "LOCAL_RANK=4, LOCAL_WORLD_SIZE=4");
  says(with(torchrun, {{"LOCAL_WORLD_SIZE", "9"}}), "LOCAL_WORLD_SIZE=9");
  says(with(torchrun, {{"MASTER_PORT", "65535"}}), "MASTER_PORT is 65535");
  says(with(openmpi, {{"RANK", "0"}, {"WORLD_SIZE", "1"}}), "mpirun says rank 2 of 4");
  says({{"RANK", "1"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "0"}}, "LOCAL_WORLD_SIZE is not");
}

TEST_CASE("Hosts of equally many consecutive ranks are told from others", "[distributed]") {
  const auto roster = [](const std::vector<std::string>& hosts, int each) {
    Roster all;
    for (const std::string& host : hosts)
      all.push_back({.rank = static_cast<int>(all.size()), .local_world = each, .host = host});
    return all;
  };
  CHECK(ranks_of_a_host(roster({"a", "a", "b", "b"}, 2)) == 2);
  CHECK(ranks_of_a_host(roster({"a", "b", "c"}, 1)) == 1);
  CHECK_THROWS_AS(ranks_of_a_host(roster({"a", "b", "a", "b"}, 2)), ConfigurationError);
  CHECK_THROWS_AS(ranks_of_a_host(roster({"a", "a", "b"}, 2)), ConfigurationError);
}
