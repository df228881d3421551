/// Who this process is among the ranks of its run, as its launcher says through the environment: torchrun,
/// `accelerate launch --no_python`, mpirun (OpenMPI, and those that speak PMI), srun, or nobody.
#pragma once

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "../core/error.hpp"
#include "../io/hash.hpp"

namespace parscale::distributed {

struct Launch {
  int rank = 0;
  int world = 1;
  int local_rank = 0;   ///< among the ranks of this host; also the GPU that it takes
  int local_world = 1;  ///< ranks of this host
  /// Host of rank 0. Empty when nobody said, which is an error for those who need it.
  std::string master_address = {};
  /// The launcher's own port; the rendezvous listens on the next one.
  int master_port = 0;
  /// Tells one run from another on the same machines, and one restart from the next.
  std::string run = {};
  std::string launcher = "none";

  int rendezvous_port() const { return master_port + 1; }
  bool distributed() const { return world > 1; }
};

/// Reads a variable of the environment; absent and empty are the same.
using Environment = std::function<std::optional<std::string>(const char*)>;

namespace detail {

/// Reads one launcher's variables and complains about them.
class LaunchReader {
 public:
  explicit LaunchReader(const Environment& read) : read_(read) {}

  std::optional<Launch> torchrun() const {
    if (!read_("RANK") && !read_("WORLD_SIZE")) return std::nullopt;
    Launch launch{.rank = needed("RANK", "WORLD_SIZE"), .world = needed("WORLD_SIZE", "RANK")};
    const auto local = number("LOCAL_RANK");
    launch.local_rank = local.value_or(launch.rank);
    launch.local_world = number("LOCAL_WORLD_SIZE").value_or(launch.world);
    if (local && launch.local_rank != launch.rank && !number("LOCAL_WORLD_SIZE"))
      fail("LOCAL_RANK is set and LOCAL_WORLD_SIZE is not", "set both or neither");
    launch.launcher = read_("TORCHELASTIC_RUN_ID") ? "torchrun" : "RANK and WORLD_SIZE";
    launch.run = read_("TORCHELASTIC_RUN_ID").value_or("");
    if (const auto restart = read_("TORCHELASTIC_RESTART_COUNT")) launch.run += ", restart " + *restart;
    return checked(launch, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE");
  }

  std::optional<Launch> mpirun() const {
    if (read_("OMPI_COMM_WORLD_SIZE"))
      return mpirun("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                    "OMPI_COMM_WORLD_LOCAL_SIZE");
    if (read_("PMI_SIZE")) return mpirun("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS");
    return std::nullopt;
  }

  /// A batch script has SLURM_PROCID and SLURM_NTASKS too, without being one of many: only srun makes steps.
  std::optional<Launch> srun() const {
    if (!read_("SLURM_PROCID") || !read_("SLURM_STEP_NUM_TASKS")) return std::nullopt;
    Launch launch{.rank = needed("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
                  .world = needed("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
                  .local_rank = needed("SLURM_LOCALID", "SLURM_PROCID")};
    launch.local_world = tasks_of_node();
    launch.launcher = "srun";
    launch.run =
        "Slurm job " + read_("SLURM_JOB_ID").value_or("?") + "." + read_("SLURM_STEP_ID").value_or("?");
    launch.master_address = launch.local_world == launch.world ? "127.0.0.1" : first_node();
    return checked(launch, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID",
                   "SLURM_STEP_TASKS_PER_NODE");
  }

  /// What any launcher may leave to the user.
  void add_common(Launch& launch) const {
    if (const auto address = read_("MASTER_ADDR")) launch.master_address = *address;
    if (const auto run = read_("PARSCALE_RUN_ID")) launch.run = *run;
    if (const auto port = number("MASTER_PORT"))
      launch.master_port = *port;
    else  // the same guess on every rank, another one for another run
      launch.master_port = static_cast<int>(20000 + io::Hash().add(launch.run).value() % 12000);
    if (launch.master_port < 1 || launch.master_port > 65534)
      fail("MASTER_PORT is " + std::to_string(launch.master_port),
           "choose a port from 1 to 65534; the rendezvous takes the one after it");
  }

  [[noreturn]] static void fail(const std::string& why, const std::string& remedy) {
    throw ConfigurationError(
        {.what = "The launch environment contradicts itself", .why = why, .remedy = remedy});
  }

 private:
  std::optional<int> number(const char* name) const {
    const auto text = read_(name);
    if (!text) return std::nullopt;
    int value = 0;
    const char* const end = text->data() + text->size();
    const auto [stop, error] = std::from_chars(text->data(), end, value);
    if (error != std::errc{} || stop != end || value < 0)
      fail(std::string(name) + " is \"" + *text + "\", which is not a number from 0 on",
           "unset it or correct it");
    return value;
  }
  int needed(const char* name, const char* other) const {
    if (const auto value = number(name)) return *value;
    fail(std::string(other) + " is set and " + name + " is not",
         "set both, or start with torchrun, mpirun or srun, which do");
  }

  Launch mpirun(const char* rank, const char* world, const char* local_rank, const char* local_world) const {
    Launch launch{.rank = needed(rank, world), .world = needed(world, rank)};
    launch.local_rank = number(local_rank).value_or(launch.rank);
    launch.local_world = number(local_world).value_or(launch.world);
    launch.launcher = "mpirun";
    launch.run = "MPI job " + read_("PMIX_NAMESPACE").value_or(read_("PMI_JOBID").value_or("?"));
    if (launch.local_world == launch.world) launch.master_address = "127.0.0.1";
    return checked(launch, rank, world, local_rank, local_world);
  }

  /// "4(x2),3": nodes of 4, 4 and 3 tasks.
  int tasks_of_node() const {
    const std::string text = read_("SLURM_STEP_TASKS_PER_NODE").value_or(*read_("SLURM_STEP_NUM_TASKS"));
    int node = number("SLURM_NODEID").value_or(0);
    for (std::string_view rest = text; !rest.empty();) {
      const std::string_view entry = rest.substr(0, rest.find(','));
      rest.remove_prefix(std::min(rest.size(), entry.size() + 1));
      const auto repeat = entry.find("(x");
      int tasks = 0, nodes = 1;
      std::from_chars(entry.data(), entry.data() + entry.size(), tasks);
      if (repeat != entry.npos)
        std::from_chars(entry.data() + repeat + 2, entry.data() + entry.size(), nodes);
      node -= nodes;
      if (node < 0) return tasks;
    }
    fail("SLURM_STEP_TASKS_PER_NODE \"" + text + "\" does not reach node " + std::to_string(node),
         "use srun");
  }

  /// "node[03-05,9],other" -> "node03".
  std::string first_node() const {
    const std::string list = read_("SLURM_STEP_NODELIST").value_or(read_("SLURM_JOB_NODELIST").value_or(""));
    const auto end = list.find_first_of(",[");
    if (end == list.npos || list[end] == ',') return list.substr(0, end);
    const auto stop = list.find_first_of("-,]", end);
    return list.substr(0, end) + list.substr(end + 1, stop - end - 1);
  }

  static Launch checked(const Launch& l, const char* rank, const char* world, const char* local_rank,
                        const char* local_world) {
    const auto shown = [](const char* name, int value) { return name + ("=" + std::to_string(value)); };
    if (l.world < 1 || l.rank >= l.world)
      fail(shown(rank, l.rank) + " with " + shown(world, l.world),
           "ranks count from 0 to the world size - 1");
    if (l.local_world < 1 || l.local_rank >= l.local_world || l.local_world > l.world)
      fail(shown(local_rank, l.local_rank) + ", " + shown(local_world, l.local_world) + " with " +
               shown(world, l.world),
           "local ranks count from 0 to the local world size - 1");
    return l;
  }

  const Environment& read_;
};

}  // namespace detail

/// Throws ConfigurationError when variables are missing, malformed or contradict each other. torchrun is
/// asked first: it may itself have been started by mpirun or srun. RANK and WORLD_SIZE that no torchrun has
/// set must agree with mpirun or srun when these are there.
inline Launch read_launch(const Environment& environment) {
  const detail::LaunchReader reader(environment);
  const std::optional<Launch> torch = reader.torchrun();
  const std::optional<Launch> mpi = reader.mpirun();
  const std::optional<Launch> outer = mpi ? mpi : reader.srun();
  Launch launch = torch ? *torch : outer.value_or(Launch{});
  if (torch && outer && torch->launcher != "torchrun" &&
      (torch->rank != outer->rank || torch->world != outer->world))
    detail::LaunchReader::fail("RANK and WORLD_SIZE say rank " + std::to_string(torch->rank) + " of " +
                                   std::to_string(torch->world) + ", " + outer->launcher + " says rank " +
                                   std::to_string(outer->rank) + " of " + std::to_string(outer->world),
                               "unset RANK and WORLD_SIZE");
  if (launch.distributed()) reader.add_common(launch);
  return launch;
}

/// From this process's own environment.
inline Launch read_launch() {
  return read_launch([](const char* name) -> std::optional<std::string> {
    const char* const value = std::getenv(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  });
}

}  // namespace parscale::distributed
