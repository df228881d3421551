#include "ranks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <parscale/distributed/tcp_communicator.hpp>
#include <parscale/distributed/watchdog.hpp>
#include <thread>

#include "common/console.hpp"
#include "common/options_table.hpp"
#include "common/placement.hpp"
#ifdef PARSCALE_WITH_NCCL
#include <parscale/distributed/nccl_communicator.hpp>
#endif

namespace parscale::program {
namespace {

using namespace distributed;

/// What may differ between processes: places and means, not results.
constexpr const char* own_affairs[] = {"training.threads", "training.logging_dir", "training.disable_tqdm"};

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

/// A communicator and the group that it makes.
template <Communicator C>
struct Connection {
  template <class... Arguments>
  explicit Connection(Arguments&&... arguments) : communicator(std::forward<Arguments>(arguments)...) {}
  C communicator;
  GroupOf<C> group{communicator};
};

}  // namespace

// Members die from the last to the first: connections before the meeting place, the alarm's end after it.
struct RunRanks::Connected {
  Connected(const Launch& launch, Watch by)
      : watch(std::move(by)),
        last_resort(watch.alarm, std::chrono::seconds(4), end_by_alarm),
        rendezvous(launch, watch) {}

  Watch watch;
  LastResort last_resort;
  Rendezvous rendezvous;
  std::unique_ptr<Connection<TcpCommunicator>> tcp;
#ifdef PARSCALE_WITH_NCCL
  std::unique_ptr<Connection<NcclCommunicator>> nccl;
#endif
  Group* group = nullptr;
};

RunRanks::RunRanks(const Options& options) {
  const Launch launch = read_launch();
  if (!launch.distributed()) return;
  if (launch.rank > 0) print_only_errors();
  const Watch watch{.timeout = std::chrono::seconds(options.training.ddp_timeout)};
  connected_ = std::make_unique<Connected>(launch, watch);
  check_agreement(facts_of(options));
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
  at.ranks = {.group = nullptr, .sharding = options.sharding, .deterministic = options.deterministic};
  if (!together()) return at;
  const Launch& launch = connected_->rendezvous.launch();
  if (!at.gpu) {
    if (at.threads == 0) at.threads = threads_of_rank(launch);
    connected_->tcp = std::make_unique<Connection<TcpCommunicator>>(TcpTransport(connected_->rendezvous));
    at.ranks.group = connected_->group = &connected_->tcp->group;
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

void RunRanks::tell_failure(const Explanation& explanation) {
  if (together() && !connected_->watch.alarm->raised()) connected_->rendezvous.fail(explanation);
}

}  // namespace parscale::program
