#include "ranks.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <parscale/distributed/tcp_communicator.hpp>
#include <parscale/distributed/watchdog.hpp>
#include <thread>

#include "common/console.hpp"
#include "common/options_table.hpp"
#include "common/placement.hpp"
#ifdef PARSCALE_WITH_MPI
#include <parscale/distributed/mpi_communicator.hpp>
#endif
#ifdef PARSCALE_WITH_NCCL
#include <parscale/distributed/nccl_communicator.hpp>
#endif

namespace parscale::program {
namespace {

using namespace distributed;

/// What may differ between processes: places and means, not results.
constexpr const char* own_affairs[] = {"training.threads", "training.logging_dir", "training.disable_tqdm",
                                       "training.rank_logs"};

Facts facts_of(const Options& options) {
  Facts facts{{"version", PARSCALE_VERSION},
              {"the section model", options.model ? options.model->dump() : "nothing"}};
  for (const Key& key : option_keys())
    if (key.verdict == Verdict::supported &&
        std::ranges::find(own_affairs, key.full_name()) == std::end(own_affairs))
      facts.push_back({key.full_name(), key.print(options)});
  return facts;
}

[[noreturn]] void end_by_alarm(const PeerError& error) {
  print_error(error.what());
  std::_Exit(error.exit_code());
}

int threads_of_rank(const Launch& launch) {
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, cores / launch.local_world);
}

#ifdef PARSCALE_WITH_MPI
constexpr bool has_mpi = true;
#else
constexpr bool has_mpi = false;
#endif

/// What connects processes on the CPU. Throws ConfigurationError for what this program was built without.
Connector cpu_connector(const TrainingOptions& options, const Launch& launch) {
  if (options.communicator == Connector::mpi && !has_mpi)
    throw ConfigurationError({.what = "This program was built without MPI",
                              .where = "training.communicator=mpi",
                              .remedy = "install libopenmpi-dev and build again, or use tcp"});
  if (options.communicator != Connector::automatic) return options.communicator;
  // Another MPI's mpirun does not start the ranks of the one that this program was linked with.
  const bool open_mpi = launch.launcher == "mpirun" && std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr;
  return has_mpi && open_mpi ? Connector::mpi : Connector::tcp;
}

/// After the alarm; a rank whose peer is stopped waits for its GPU longer than anybody should for it.
constexpr std::chrono::seconds time_to_unwind(2);

/// How long ranks may come apart; no longer than they are to be waited for later.
RendezvousOptions patience_of(const TrainingOptions& options) {
  RendezvousOptions patience;
  patience.join_timeout = std::min(patience.join_timeout, Milliseconds(1000 * options.ddp_timeout));
  return patience;
}

/// A communicator and the group that it makes.
template <Communicator C>
struct Connection {
  template <class... Arguments>
  explicit Connection(Arguments&&... arguments) : communicator(std::forward<Arguments>(arguments)...) {}
  C communicator;
  GroupOf<C> group{communicator};
};

}  // namespace

// Members die from the last to the first: connections before the meeting place, the alarm's end after it, MPI
// last of all.
struct RunRanks::Connected {
  Connected(const Launch& launch, const TrainingOptions& options)
      : connector(cpu_connector(options, launch)),
        watch{.timeout = std::chrono::seconds(options.ddp_timeout)},
        last_resort(watch.alarm, time_to_unwind, end_by_alarm),
        rendezvous(meeting_place(launch), watch, patience_of(options)) {}

  /// mpirun on several hosts leaves open where rank 0 is: MPI knows.
  Launch meeting_place(Launch launch) {
#ifdef PARSCALE_WITH_MPI
    if (connector == Connector::mpi && launch.master_address.empty()) mpi_session.emplace().complete(launch);
#endif
    return launch;
  }

  Group* connect_cpus() {
#ifdef PARSCALE_WITH_MPI
    if (connector == Connector::mpi) {
      if (!mpi_session) mpi_session.emplace();
      mpi = std::make_unique<Connection<MpiCommunicator>>(MpiTransport(*mpi_session, rendezvous));
      return group = &mpi->group;
    }
#endif
    tcp = std::make_unique<Connection<TcpCommunicator>>(TcpTransport(rendezvous));
    return group = &tcp->group;
  }

  const Connector connector;  ///< on the CPU
#ifdef PARSCALE_WITH_MPI
  std::optional<MpiSession> mpi_session;
#endif
  Watch watch;
  LastResort last_resort;
  Rendezvous rendezvous;
  std::unique_ptr<Connection<TcpCommunicator>> tcp;
#ifdef PARSCALE_WITH_MPI
  std::unique_ptr<Connection<MpiCommunicator>> mpi;
#endif
#ifdef PARSCALE_WITH_NCCL
  std::unique_ptr<Connection<NcclCommunicator>> nccl;
#endif
  Group* group = nullptr;
};

RunRanks::RunRanks(const Options& options) {
  const Launch launch = read_launch();
  if (!launch.distributed()) return;
  if (launch.rank > 0) print_only_errors();
  connected_ = std::make_unique<Connected>(launch, options.training);
  check_agreement(facts_of(options));
  if (options.training.rank_logs) open_log(options.training);
}

RunRanks::~RunRanks() = default;

int RunRanks::rank() const { return together() ? connected_->rendezvous.launch().rank : 0; }
int RunRanks::world() const { return connected_ ? connected_->rendezvous.launch().world : 1; }

bool RunRanks::restarted() const {
  const char* const count = std::getenv("TORCHELASTIC_RESTART_COUNT");
  return count != nullptr && std::atoi(count) > 0;
}

Placement RunRanks::placement(const TrainingOptions& options) {
  Placement at = placement_of(options);
  at.ranks = {.group = nullptr,
              .sharding = options.sharding,
              .deterministic = options.deterministic,
              .host_ranks = static_cast<int>(options.sharding_group_size),
              .rounds_gradients = options.gradient_reduction_dtype == Precision::bfloat16};
  if (!together()) return at;
  if (options.sharding == Sharding::hybrid && options.sharding_group_size == 0)
    at.ranks.host_ranks = ranks_of_a_host(connected_->rendezvous.roster());
  const Launch& launch = connected_->rendezvous.launch();
  if (!at.gpu) {
    if (at.threads == 0) at.threads = threads_of_rank(launch);
    at.ranks.group = connected_->connect_cpus();
    return at;
  }
  at.gpu = launch.local_rank;
#ifdef PARSCALE_WITH_NCCL
  at.connect_gpus = [this](void* stream) -> Group* {
    connected_->nccl = std::make_unique<Connection<NcclCommunicator>>(connected_->rendezvous,
                                                                      static_cast<cudaStream_t>(stream));
    return connected_->group = &connected_->nccl->group;
  };
  return at;
#else
  throw ConfigurationError({.what = "This program was built without NCCL, which connects GPUs",
                            .where = fmt::format("rank {} of {}", launch.rank, launch.world),
                            .remedy = "install NCCL and build again, or use training.device=cpu"});
#endif
}

std::vector<std::string> RunRanks::gather(const std::string& text, const std::string& what) {
  return together() ? connected_->rendezvous.gather(text, what) : std::vector{text};
}

std::vector<double> RunRanks::gather(std::span<const double> values) {
  if (!together()) return {values.begin(), values.end()};
  return gather_values(*connected_->group, values);
}

void RunRanks::check_agreement(const Facts& facts) {
  if (together()) distributed::check_agreement(connected_->rendezvous, facts);
}

void RunRanks::begin_step(Index step) {
  if (together()) connected_->watch.activity->step(step);
}

void RunRanks::open_log(const TrainingOptions& options) {
  const std::filesystem::path folder = std::filesystem::path(options.output_dir) / "logs";
  std::filesystem::create_directories(folder);
  log_.open(folder / fmt::format("rank-{}.log", rank()), std::ios::app);
  log(fmt::format("{} of {} ranks, started by {}",
                  to_string(connected_->rendezvous.roster()[static_cast<std::size_t>(rank())]), world(),
                  connected_->rendezvous.launch().launcher));
}

void RunRanks::log(const std::string& line) {
  if (!log_.is_open()) return;
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  log_ << fmt::format("{:%FT%TZ}  {}\n", fmt::gmtime(now), line) << std::flush;
}

void RunRanks::tell_failure(const Explanation& explanation) {
  log("failed    " + explanation.what);
  if (together() && !connected_->watch.alarm->raised()) connected_->rendezvous.fail(explanation);
}

}  // namespace parscale::program
