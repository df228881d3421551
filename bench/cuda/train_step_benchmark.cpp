// A training step of the Qwen2-1.5B shape on a GPU: forward, backward, clipping, AdamW.
//
//   train_step_benchmark P KIND BATCH [--tokens 2048] [--layers 28] [--keep everything|products|layer_inputs]
//                        [--frozen] [--steps 12] [--parts]
//
// Prints one JSON line: median milliseconds, tokens a second, MFU against the data sheet, planned and used
// GiB. With --parts also where a step's time goes, by events around each operation, and what each operation
// must move and multiply at least (draw_step_parts makes a table and a picture of it).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <parscale/backend/cuda/cuda.hpp>
#include <parscale/causal_lm.hpp>
#include <parscale/core/random.hpp>
#include <parscale/train/flops.hpp>
#include <parscale/train/memory_plan.hpp>
#include <parscale/train/trainer.hpp>

#include "qwen2_shape.hpp"
#include "timed_cuda.hpp"

namespace {

using namespace parscale;
using bench::TimedCuda;

struct Command {
  int replicas = 4;
  std::string kind = "none", keep = "products";
  Index batch = 4, tokens = 2048, layers = 28;
  int steps = 12;
  bool frozen = false, parts = false;
};

Keep keep_of(const std::string& word) {
  if (word == "everything") return Keep::everything;
  return word == "layer_inputs" ? Keep::layer_inputs : Keep::products;
}

Batch random_batch(const Command& c, Index vocabulary) {
  std::vector<Token> ids(static_cast<std::size_t>(c.batch * c.tokens));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<Token>(uniform(1, 2, i) * static_cast<double>(vocabulary));
  return batch_of(std::move(ids), c.batch);
}

/// The last step's time by operation, and the ceilings of this GPU, inside the JSON line.
void print_parts(TimedCuda& on, const bench::Ceilings& best) {
  std::printf("\"copy_gb_s\": %.0f, \"product_tflop_s\": %.1f, \"parts\": [", best.copy * 1e-9,
              best.product * 1e-12);
  const char* comma = "";
  for (const auto& [name, part] : on.take_parts()) {
    std::printf("%s{\"name\": \"%s\", \"calls\": %d, \"ms\": %.4f, \"mb\": %.1f, \"gflop\": %.1f}", comma,
                name.c_str(), part.calls, part.ms, part.bytes * 1e-6, part.flops * 1e-9);
    comma = ", ";
  }
  std::printf("], ");
}

TimedCuda::Names names_of(const Shape& s, Index head_dim) {
  const Index q = s.heads * head_dim, kv = s.kv_heads * head_dim;
  return {{{q + 2 * kv, s.hidden}, "q, k, v"},
          {{s.hidden, q}, "o"},
          {{2 * s.intermediate, s.hidden}, "gate, up"},
          {{s.hidden, s.intermediate}, "down"}};
}

template <Architecture arch, class B>
int measure_on(const Command& c) {
  using Model = CausalLM<arch, B>;
  constexpr bool timed = std::is_same_v<B, TimedCuda>;
  const Shape shape = qwen2_1_5b(c.layers);
  B on;
  bench::Ceilings best;
  if constexpr (timed) {
    best = bench::ceilings(on);
    on.name_products(names_of(shape, arch.head_dim));
  }
  const std::size_t others = on.device().memory_in_use();
  Model model(shape, Uninitialised{}, std::move(on));
  model.store().each([&](const OwnedBy<B>& p) {  // the same bits many times over: drawing all takes a minute
    std::vector<float> values(static_cast<std::size_t>(std::min<Index>(p.weight.count(), 1 << 20)));
    initialise(std::span(values), p.name, 0.02, 1);
    for (Index first = 0; first < p.weight.count(); first += 1 << 20)
      set_weight<B>(p, first,
                    std::span(values).first(
                        static_cast<std::size_t>(std::min<Index>(1 << 20, p.weight.count() - first))),
                    model.backend());
  });
  const TrainerOptions options{.sequences = c.batch,
                               .tokens = c.tokens,
                               .keep = keep_of(c.keep),
                               .trainable = c.frozen ? Trainable("prefix,aggregate") : Trainable()};
  const auto plan = memory_plan<Model>(shape, {c.batch, c.tokens, options.keep, false}, model.parameters(),
                                       model.store().elements(options.trainable), model.backend());
  Trainer<Model> trainer(model, options);
  const Batch batch = random_batch(c, shape.vocabulary);
  std::vector<double> times;
  StepResult result{};
  for (int i = 0; i < c.steps; ++i) {
    if constexpr (timed) model.backend().take_parts();
    const auto begin = std::chrono::steady_clock::now();
    result = trainer.step(std::span(&batch, 1), 3e-4);
    model.backend().synchronize();
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  std::vector<double> warm(times.begin() + std::min<std::ptrdiff_t>(3, c.steps - 1), times.end());
  std::sort(warm.begin(), warm.end());
  const double ms = warm[warm.size() / 2], tokens = static_cast<double>(c.batch * c.tokens) / (ms / 1e3);
  const auto gib = [](std::size_t bytes) { return static_cast<double>(bytes) / 0x1p30; };
  std::printf("{");
  if constexpr (timed) print_parts(model.backend(), best);
  std::printf(
      "\"P\": %d, \"kind\": \"%s\", \"batch\": %lld, \"tokens\": %lld, \"layers\": %lld, \"keep\": \"%s\", "
      "\"frozen\": %s, \"ms\": %.2f, \"first_ms\": %.0f, \"tokens_per_s\": %.0f, \"mfu\": %.4f, "
      "\"planned_gib\": %.2f, \"used_gib\": %.2f, \"loss\": %.5f, \"grad_norm\": %.4f, \"gpu\": \"%s\"}\n",
      c.replicas, c.kind.c_str(), static_cast<long long>(c.batch), static_cast<long long>(c.tokens),
      static_cast<long long>(c.layers), c.keep.c_str(), c.frozen ? "true" : "false", ms, times.front(),
      tokens, tokens * flops_a_token(arch, shape, c.tokens) / model.backend().device().peak_flops(false),
      gib(plan.total()), gib(model.backend().device().memory_in_use() - others), result.loss,
      result.grad_norm, model.backend().device().name().c_str());
  return 0;
}

template <Architecture arch>
int measure(const Command& c) {
  return c.parts ? measure_on<arch, TimedCuda>(c) : measure_on<arch, Cuda>(c);
}

constexpr Architecture arch_of(int replicas, CrossAttention kind = CrossAttention::none) {
  return {.head_dim = 128, .replicas = replicas, .cross_attention = kind};
}

int run(const Command& c) {
  const std::map<std::string, int (*)(const Command&)> cases{
      {"1 none", measure<arch_of(1)>},
      {"4 none", measure<arch_of(4)>},
      {"8 none", measure<arch_of(8)>},
      {"4 sublayer", measure<arch_of(4, CrossAttention::sublayer)>},
      {"4 expanded", measure<arch_of(4, CrossAttention::expanded)>}};
  const auto found = cases.find(std::to_string(c.replicas) + " " + c.kind);
  if (found == cases.end()) {
    std::fprintf(stderr, "P and KIND are one of: 1 none, 4 none, 8 none, 4 sublayer, 4 expanded\n");
    return 2;
  }
  return found->second(c);
}

}  // namespace

int main(int argc, char** argv) {
  Command c;
  const std::vector<std::string> words(argv + 1, argv + argc);
  for (std::size_t i = 0; i < words.size(); ++i) {
    const auto next = [&] { return i + 1 < words.size() ? words[++i] : std::string("0"); };
    if (words[i] == "--tokens")
      c.tokens = std::stoll(next());
    else if (words[i] == "--layers")
      c.layers = std::stoll(next());
    else if (words[i] == "--keep")
      c.keep = next();
    else if (words[i] == "--steps")
      c.steps = std::stoi(next());
    else if (words[i] == "--frozen")
      c.frozen = true;
    else if (words[i] == "--parts")
      c.parts = true;
    else if (i == 0)
      c.replicas = std::stoi(words[i]);
    else if (i == 1)
      c.kind = words[i];
    else if (i == 2)
      c.batch = std::stoll(words[i]);
  }
  try {
    return run(c);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
}
