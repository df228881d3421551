// A training step of the Qwen2-1.5B shape that the GPUs of a host share: forward, backward, clipping, AdamW,
// and what the ranks exchange.
//
//   sharded_step_benchmark GPUS P BATCH [--sharding full|optimizer|none] [--accumulate 1] [--steps 12]
//                          [--gradients float32|bfloat16]
//                          [--keep everything|products|layer_inputs] [--tokens 2048] [--layers 28]
//
// BATCH is a rank's. It forks its ranks itself; under torchrun, mpirun or srun it is one of theirs. Prints
// one JSON line: the median over the steps of the slowest rank's milliseconds, tokens a second of all ranks,
// the milliseconds a step that the compute stream of the rank that waits most stands still for communication,
// and the planned and used GiB of a rank.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <parscale/backend/cuda/cuda.hpp>
#include <parscale/causal_lm.hpp>
#include <parscale/core/random.hpp>
#include <parscale/distributed/nccl_communicator.hpp>
#include <parscale/distributed/watchdog.hpp>
#include <parscale/store/sharded_store.hpp>
#include <parscale/train/flops.hpp>
#include <parscale/train/memory_plan.hpp>
#include <parscale/train/trainer.hpp>

#include "qwen2_shape.hpp"

namespace {

using namespace parscale;
using namespace parscale::distributed;

struct Command {
  int gpus = 1, replicas = 4;
  Index batch = 2, tokens = 2048, layers = 28;
  std::string sharding = "full", keep = "products", gradients = "float32";
  int accumulate = 1, steps = 12;
};

template <class T>
T one_of(const std::map<std::string, T>& known, const std::string& word) {
  const auto found = known.find(word);
  if (found == known.end()) throw ConfigurationError({.what = "Not known: " + word});
  return found->second;
}
Keep keep_of(const std::string& word) {
  return one_of<Keep>(
      {{"everything", Keep::everything}, {"products", Keep::products}, {"layer_inputs", Keep::layer_inputs}},
      word);
}
Sharding sharding_of(const std::string& word) {
  return one_of<Sharding>(
      {{"full", Sharding::full}, {"optimizer", Sharding::optimizer}, {"none", Sharding::none}}, word);
}

/// This rank's connection to the others; alone there is none.
class Connection {
 public:
  Connection(const Launch& launch, cudaStream_t compute)
      : last_resort_(watch_.alarm, std::chrono::seconds(4), [](const PeerError& error) { end(error); }),
        rendezvous_(launch, watch_) {
    if (!launch.distributed()) return;
    ranks_.emplace(rendezvous_, compute);
    group_.emplace(*ranks_);
    barrier(*group_);  // NCCL takes its memory at the first operation
  }
  Group* group() { return group_ ? &*group_ : nullptr; }
  void meet() {
    if (group_) barrier(*group_);
  }
  /// The largest of all ranks' values.
  double largest(double value) {
    if (!group_) return value;
    const auto all = gather_values(*group_, std::span<const double>(&value, 1));
    return *std::max_element(all.begin(), all.end());
  }
  void measure_exposure() {
    if (ranks_) ranks_->measure_exposure(true);
  }
  double take_exposure() { return ranks_ ? ranks_->take_exposure() : 0; }

 private:
  [[noreturn]] static void end(const PeerError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::_Exit(error.exit_code());
  }
  Watch watch_{.timeout = std::chrono::seconds(60)};
  LastResort last_resort_;
  Rendezvous rendezvous_;
  std::optional<NcclCommunicator> ranks_;
  std::optional<GroupOf<NcclCommunicator>> group_;
};

Batch random_batch(const Command& c, Index vocabulary, int rank) {
  std::vector<Token> ids(static_cast<std::size_t>(c.batch * c.tokens));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] =
        static_cast<Token>(uniform(1, static_cast<std::uint64_t>(rank), i) * static_cast<double>(vocabulary));
  return batch_of(std::move(ids), c.batch);
}

/// The same bits many times over: drawing all takes a minute.
template <class Model>
void fill_weights(Model& model) {
  constexpr Index period = 1 << 20;
  model.store().each([&](const OwnedBy<Cuda>& p) {
    std::vector<float> values(static_cast<std::size_t>(std::min(p.weight.count(), period)));
    initialise(std::span(values), p.name, 0.02, 1);
    for (Index first = 0; first < p.weight.count(); first += period)
      set_weight<Cuda>(
          p, first,
          std::span(values).first(static_cast<std::size_t>(std::min(period, p.weight.count() - first))),
          model.backend());
  });
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Measured {
  double ms = 0, exposed = 0;
  StepResult last{};
};

template <class Model>
Measured measure_steps(Trainer<Model>& trainer, const std::vector<Batch>& batches, Model& model,
                       Connection& ranks, int steps) {
  Measured measured;
  std::vector<double> times;
  const auto step = [&] {
    ranks.meet();
    const auto begin = std::chrono::steady_clock::now();
    measured.last = trainer.step(batches, 3e-4);
    model.backend().synchronize();
    return ranks.largest(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  };
  for (int i = 0; i < 3; ++i) step();
  for (int i = 0; i < steps; ++i) times.push_back(step());
  measured.ms = median(times);
  ranks.measure_exposure();
  std::vector<double> exposed;
  for (int i = 0; i < 3; ++i) {
    step();
    exposed.push_back(ranks.largest(ranks.take_exposure()));
  }
  measured.exposed = median(exposed);
  return measured;
}

template <int replicas>
void measure(const Command& c, const Launch& launch) {
  constexpr Architecture arch{.head_dim = 128, .replicas = replicas};
  using Model = CausalLM<arch, Cuda, ShardedStore>;
  const Shape shape = qwen2_1_5b(c.layers);
  Cuda on({.device = launch.local_rank});
  const std::size_t before = on.device().memory_in_use();
  Connection ranks(launch, on.stream());
  const std::size_t others = on.device().memory_in_use();
  const Ranks shared{.group = ranks.group(),
                     .sharding = sharding_of(c.sharding),
                     .rounds_gradients = c.gradients == "bfloat16"};
  Model model(shape, Uninitialised{}, std::move(on), shared);
  fill_weights(model);
  const TrainerOptions options{.sequences = c.batch, .tokens = c.tokens, .keep = keep_of(c.keep)};
  const auto plan = memory_plan<Model>(shape, {c.batch, c.tokens, options.keep, false}, options.trainable,
                                       model.store().division(), model.backend());
  Trainer<Model> trainer(model, options);
  const std::vector<Batch> batches(static_cast<std::size_t>(c.accumulate),
                                   random_batch(c, shape.vocabulary, launch.rank));
  const Measured its = measure_steps(trainer, batches, model, ranks, c.steps);
  const cuda::Device& device = model.backend().device();
  const auto gib = [](std::size_t bytes) { return static_cast<double>(bytes) / 0x1p30; };
  const double used = ranks.largest(gib(device.memory_in_use() - others));
  const double tokens =
      static_cast<double>(launch.world * c.accumulate * c.batch * c.tokens) / (its.ms / 1e3);
  if (launch.rank > 0) return;
  std::printf(
      "{\"gpus\": %d, \"P\": %d, \"batch\": %lld, \"accumulate\": %d, \"sharding\": \"%s\", \"keep\": "
      "\"%s\", "
      "\"gradients\": \"%s\", \"ms\": %.2f, \"exposed_ms\": %.2f, \"tokens_per_s\": "
      "%.0f, "
      "\"mfu\": %.4f, \"planned_gib\": %.2f, \"used_gib\": %.2f, \"nccl_gib\": %.2f, \"loss\": %.5f, "
      "\"grad_norm\": %.4f, \"gpu\": \"%s\"}\n",
      launch.world, replicas, static_cast<long long>(c.batch), c.accumulate, c.sharding.c_str(),
      c.keep.c_str(), c.gradients.c_str(), its.ms, its.exposed, tokens,
      tokens / launch.world * flops_a_token(arch, shape, c.tokens) / device.peak_flops(false),
      gib(plan.total()), used, gib(others - before), its.last.loss, its.last.grad_norm,
      device.name().c_str());
}

/// Becomes a launcher when nobody else is one. The result is the worst exit code of the ranks, or nothing in
/// a rank.
std::optional<int> fork_ranks(int gpus) {
  if (gpus == 1 || read_launch().distributed()) return std::nullopt;
  const std::string port = std::to_string(20000 + ::getpid() % 20000);
  std::vector<pid_t> ranks;
  for (int rank = 0; rank < gpus; ++rank) {
    ranks.push_back(::fork());
    if (ranks.back() != 0) continue;
    const std::pair<const char*, std::string> variables[] = {
        {"RANK", std::to_string(rank)},       {"LOCAL_RANK", std::to_string(rank)},
        {"WORLD_SIZE", std::to_string(gpus)}, {"LOCAL_WORLD_SIZE", std::to_string(gpus)},
        {"MASTER_ADDR", "127.0.0.1"},         {"MASTER_PORT", port}};
    for (const auto& [name, value] : variables) ::setenv(name, value.c_str(), 1);
    return std::nullopt;
  }
  int worst = 0;
  for (const pid_t rank : ranks) {
    int status = 0;
    ::waitpid(rank, &status, 0);
    worst = std::max(worst, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  return worst;
}

Command read_command(const std::vector<std::string>& words) {
  Command c;
  if (words.size() < 3) throw ConfigurationError({.what = "GPUS, P and BATCH are missing"});
  c.gpus = std::stoi(words[0]);
  c.replicas = std::stoi(words[1]);
  c.batch = std::stoll(words[2]);
  const std::map<std::string, std::function<void(const std::string&)>> options{
      {"--sharding", [&](const std::string& word) { c.sharding = word; }},
      {"--gradients", [&](const std::string& word) { c.gradients = word; }},
      {"--keep", [&](const std::string& word) { c.keep = word; }},
      {"--accumulate", [&](const std::string& word) { c.accumulate = std::stoi(word); }},
      {"--steps", [&](const std::string& word) { c.steps = std::stoi(word); }},
      {"--tokens", [&](const std::string& word) { c.tokens = std::stoll(word); }},
      {"--layers", [&](const std::string& word) { c.layers = std::stoll(word); }}};
  for (std::size_t i = 3; i + 1 < words.size(); i += 2) one_of(options, words[i])(words[i + 1]);
  return c;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Command c = read_command({argv + 1, argv + argc});
    if (const auto code = fork_ranks(c.gpus)) return *code;
    one_of<void (*)(const Command&, const Launch&)>({{"1", measure<1>}, {"4", measure<4>}},
                                                    std::to_string(c.replicas))(c, read_launch());
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
}
