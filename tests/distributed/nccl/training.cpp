/// Models that GPUs share against the same models on one GPU, which no test machine without GPUs can try:
/// `nccl_training N [STEPS]` forks N ranks on the first N GPUs and trains small float32 models, each shared
/// in every way, alone first and then together. Losses agree to rounding, in deterministic mode losses and
/// weights bit for bit. One line a model; exits with 1 when one is wrong.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <parscale/backend/cuda/cuda.hpp>
#include <parscale/causal_lm.hpp>
#include <parscale/distributed/nccl_communicator.hpp>
#include <parscale/distributed/watchdog.hpp>
#include <parscale/store/sharded_store.hpp>
#include <parscale/train/trainer.hpp>

#include "../processes.hpp"

using namespace parscale;
using namespace parscale::distributed;
using namespace parscale::test;

namespace {

constexpr Index tokens = 48;

struct Case {
  bool tied;
  Index micro_batches;  ///< of the global batch, one sequence each
  bool deterministic = false;
};
/// How the ranks share it.
struct Way {
  const char* name;
  Sharding sharding = Sharding::full;
  bool rounds = false;  ///< gradients to bfloat16
};
constexpr Way ways[] = {{"full"},
                        {"optimizer", Sharding::optimizer},
                        {"none", Sharding::none},
                        {"hybrid, a copy a rank", Sharding::hybrid},
                        {"full, rounded", Sharding::full, true},
                        {"none, rounded", Sharding::none, true}};
/// Two ranks have one micro-batch each, three each, or not the same number.
constexpr Case kinds[] = {{true, 2}, {true, 6},       {false, 2},      {false, 6},
                          {true, 3}, {true, 3, true}, {false, 6, true}};

std::string name(const Case& c) {
  return std::string(c.deterministic ? "deterministic " : "") + (c.tied ? "tied, " : "untied, ") +
         std::to_string(c.micro_batches) + " micro-batches";
}

/// Sizes that no number of ranks divides evenly.
Shape shape_of(const Case& c) {
  return {.layers = 3,
          .hidden = 264,
          .intermediate = 520,
          .heads = 4,
          .kv_heads = 2,
          .vocabulary = 4001,
          .prefix_tokens = 3,
          .rope_theta = 1e4,
          .tied = c.tied,
          .replica_embedding = true,
          .cross_layers = {1}};
}

Batch sequence(std::uint64_t j) {
  std::vector<Token> ids(static_cast<std::size_t>(tokens));
  for (std::size_t i = 0; i < ids.size(); ++i)  // something to learn: every token follows from the last one
    ids[i] = i == 0 ? static_cast<Token>(uniform(3, 0, j) * 509) : (ids[i - 1] * 7 + 3) % 509;
  return batch_of(std::move(ids), 1);
}

std::vector<Batch> micro_batches(const Case& c, Index step, int rank, int world) {
  const Stretch mine = share_of(c.micro_batches, rank, world);
  std::vector<Batch> batches;
  for (Index i = mine.first; i < mine.first + mine.count; ++i)
    batches.push_back(sequence(static_cast<std::uint64_t>(step * c.micro_batches + i)));
  return batches;
}

struct Outcome {
  std::vector<double> losses;
  std::vector<float> weights;
};

using Gpu = CudaBackend<float>;
using Model = CausalLM<Architecture{.head_dim = 64,
                                    .replicas = 4,
                                    .cross_attention = CrossAttention::sublayer,
                                    .cross_layers = LayerSet::at_run_time()},
                       Gpu, ShardedStore>;

/// Alone when there is no rendezvous.
Outcome train(const Case& c, const Way& way, int steps, int device, Rendezvous* rendezvous) {
  Gpu on({.device = device, .measure = false});
  std::optional<NcclCommunicator> ranks;
  std::optional<GroupOf<NcclCommunicator>> group;
  if (rendezvous != nullptr) {
    group.emplace(ranks.emplace(*rendezvous, on.stream()));
  }
  const int rank = group ? group->rank() : 0, world = group ? group->size() : 1;
  Model model(shape_of(c), 7, std::move(on),
              {.group = group ? &*group : nullptr,
               .sharding = way.sharding,
               .deterministic = c.deterministic,
               .rounds_gradients = way.rounds});
  Trainer<Model> trainer(model, {.tokens = tokens});
  Outcome out;
  for (Index step = 0; step < steps; ++step)
    out.losses.push_back(trainer.step(micro_batches(c, step, rank, world), 1e-3).loss);
  model.store().each([&](const OwnedBy<Gpu>& p) {
    std::vector<float> values(static_cast<std::size_t>(p.extent.count()));
    model.store().gather(p.weight, p.offset, 0, values, model.backend());
    out.weights.insert(out.weights.end(), values.begin(), values.end());
  });
  return out;
}

template <class T>
double largest_difference(const std::vector<T>& a, const std::vector<T>& b) {
  double worst = 0, scale = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(difference <= worst)) worst = difference;
    scale = std::max(scale, std::abs(static_cast<double>(a[i])));
  }
  return worst / scale;
}

bool check_case(const Case& c, const Way& way, const Outcome& one, const Outcome& many, bool print) {
  const double losses = largest_difference(one.losses, many.losses);
  const double weights = largest_difference(one.weights, many.weights);
  const bool same = one.losses == many.losses && one.weights == many.weights;
  const bool good = c.deterministic ? same : losses < (way.rounds ? 3e-2 : 1e-3);
  if (print)
    std::printf("%-32s %-22s loss %.6f -> %.6f, differs by %.1e, weights by %.1e%s%s\n", name(c).c_str(),
                way.name, one.losses.front(), one.losses.back(), losses, weights, same ? " (same bits)" : "",
                good ? "" : " WRONG");
  std::fflush(stdout);
  return good;
}

[[noreturn]] void end(const PeerError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  ::_exit(error.exit_code());
}

void run_rank(int rank, int world, int port, int steps) {
  const Watch watch{.timeout = std::chrono::seconds(20)};
  const LastResort last_resort(watch.alarm, std::chrono::seconds(4), end);
  Rendezvous rendezvous(launch_of(rank, world, port), watch);
  bool good = true;
  for (const Case& c : kinds) {
    const Outcome one = train(c, ways[0], steps, rank, nullptr);
    for (const Way& way : ways)
      if (!(c.deterministic && way.rounds))
        good &= check_case(c, way, one, train(c, way, steps, rank, &rendezvous), rank == 0);
  }
  if (!good) throw std::runtime_error("something is WRONG");
}

}  // namespace

int main(int count, char** arguments) {
  const int world = count > 1 ? std::atoi(arguments[1]) : 2,
            steps = count > 2 ? std::atoi(arguments[2]) : 200;
  const int port = free_port();
  bool good = true;
  for (const Ended& rank : run_children(
           world, [&](int r) { run_rank(r, world, port, steps); }, 300)) {
    good &= rank.code == 0;
    std::printf("ended with %d after %.1f s %s\n", rank.code, rank.after, rank.text.c_str());
  }
  std::puts(good ? "all is well" : "something is WRONG");
  return good ? 0 : 1;
}
