/// The time and memory of one training step on the CPU: forward, backward, clipping and AdamW.
///   training_step SHAPE P [RUNS]      SHAPE small or layer, P 1, 4 or 8
/// Sizes are those of bench/peers/bench_cpu.py; compare_steps runs both. Prints one JSON line, the time a
/// median.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <parscale/io/json.hpp>
#include <parscale/model.hpp>
#include <parscale/train/memory_plan.hpp>
#include <parscale/train/trainer.hpp>
#include <string>
#include <vector>

namespace {

using parscale::Index;
using parscale::Shape;
using parscale::io::Json;

constexpr Index sequences = 4, tokens = 256;
const std::map<std::string, Shape> shapes = {{"small",
                                              {.layers = 4,
                                               .hidden = 256,
                                               .intermediate = 704,
                                               .heads = 4,
                                               .kv_heads = 2,
                                               .vocabulary = 4096,
                                               .prefix_tokens = 48,
                                               .tied = true}},
                                             {"layer",
                                              {.layers = 2,
                                               .hidden = 896,
                                               .intermediate = 4864,
                                               .heads = 14,
                                               .kv_heads = 2,
                                               .vocabulary = 4096,
                                               .prefix_tokens = 48,
                                               .tied = true}}};

std::uint64_t memory_now() {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * 4096;
}
double mebibytes(std::uint64_t bytes) { return static_cast<double>(bytes) / 0x1p20; }

parscale::Batch random_batch(const Shape& shape) {
  std::vector<parscale::Token> ids(static_cast<std::size_t>(sequences * tokens));
  std::uint64_t state = 1;
  for (auto& id : ids) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    id = static_cast<parscale::Token>(state >> 33) % static_cast<parscale::Token>(shape.vocabulary);
  }
  return parscale::batch_of(std::move(ids), sequences);
}

template <int P>
Json measure(const Shape& shape, int runs) {
  using Model =
      parscale::CausalLM<parscale::Architecture{.head_dim = 64, .replicas = P}, parscale::Cpu<float>>;
  const std::uint64_t before = memory_now();
  Model model(shape, 0, parscale::Cpu<float>({.threads = 2}));
  const auto plan =
      parscale::memory_plan<Model>(shape, {sequences, tokens, parscale::Keep::everything, false},
                                   model.parameters(), model.parameters(), model.backend());
  parscale::Trainer<Model> trainer(model, {.sequences = sequences, .tokens = tokens});
  const parscale::Batch batch = random_batch(shape);
  std::vector<double> times;
  for (int i = 0; i < runs + 2; ++i) {  // two to warm up
    const auto begin = std::chrono::steady_clock::now();
    trainer.step(std::span(&batch, 1), 1e-3);
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
    if (i >= 2) times.push_back(time.count());
  }
  std::sort(times.begin(), times.end());
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return {{"P", P},
          {"train_ms", times[times.size() / 2]},
          {"planned_mib", mebibytes(plan.total() + before)},
          {"peak_mib", mebibytes(static_cast<std::uint64_t>(usage.ru_maxrss) * 1024)}};
}

}  // namespace

int main(int argc, char** argv) {
  const auto shape = argc > 2 ? shapes.find(argv[1]) : shapes.end();
  const std::string replicas = argc > 2 ? argv[2] : "";
  if (shape == shapes.end() || (replicas != "1" && replicas != "4" && replicas != "8")) {
    std::cerr << "usage: training_step small|layer 1|4|8 [RUNS]\n";
    return 2;
  }
  const int runs = argc > 3 ? std::max(1, std::atoi(argv[3])) : 7;
  const auto run = replicas == "1" ? measure<1> : replicas == "4" ? measure<4> : measure<8>;
  std::cout << run(shape->second, runs).dump() << '\n';
}
