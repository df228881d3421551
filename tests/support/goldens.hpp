/// Golden cases: a checkpoint beside what the reference computed from it in float64.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <parscale/io/model_config.hpp>
#include <parscale/io/safetensors_reader.hpp>
#include <parscale/model.hpp>
#include <parscale/train/trainer.hpp>
#include <string>
#include <vector>

namespace parscale::test {

/// The directory of cases: $PARSCALE_GOLDENS, else the project's own.
inline std::filesystem::path goldens() {
  const char* other = std::getenv("PARSCALE_GOLDENS");
  return other != nullptr ? other : PARSCALE_SOURCE_DIR "/tests/data/goldens";
}

inline std::vector<std::filesystem::path> golden_cases() {
  std::vector<std::filesystem::path> cases;
  for (const auto& entry : std::filesystem::directory_iterator(goldens()))
    if (std::filesystem::exists(entry.path() / "expected.safetensors")) cases.push_back(entry.path());
  std::sort(cases.begin(), cases.end());
  return cases;
}

template <class T>
std::vector<T> read(const io::SafetensorsFile& file, const std::string& name) {
  const io::TensorInfo* info = file.find(name);
  INFO("tensor " << name << " in " << file.path().string());
  REQUIRE(info != nullptr);
  std::vector<T> values(info->count());
  file.read(*info, std::span<T>(values));
  return values;
}

template <class T>
double largest(const std::vector<T>& values) {
  double most = 0;
  for (T v : values) most = std::max(most, std::abs(static_cast<double>(v)));
  return most;
}

template <class A, class C>
double largest_difference(const std::vector<A>& a, const std::vector<C>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(difference <= most)) most = difference;  // a NaN stays
  }
  return most;
}

/// How far results may lie from the goldens, relative to the largest element named here.
template <class T>
struct Tolerance;
template <>
struct Tolerance<double> {  // of each tensor's largest: the files are float32 roundings
  static constexpr double logits = 2e-7, gradients = 2e-7, step = 2e-7;
  static constexpr bool gradients_by_tensor = true;
};
template <>
struct Tolerance<float> {  // gradients: of the model's largest gradient
  static constexpr double logits = 5e-6, gradients = 1e-5, step = 1e-3;
  static constexpr bool gradients_by_tensor = false;
};

/// One golden case on one model type: logits, loss, every gradient, their norm, one AdamW step, greedy text.
template <class Model, class Limit = Tolerance<Wide<typename Model::BackendType>>>
class GoldenCase {
  using B = typename Model::BackendType;
  using T = Wide<B>;

 public:
  GoldenCase(const std::filesystem::path& folder, B on)
      : expected_(folder / "expected.safetensors"),
        model_(Model::load(folder, std::move(on))),
        ids_(read<std::int64_t>(expected_, "input_ids")) {
    const auto tokens = expected_.find("input_ids")->shape[1];
    batch_ = batch_of({ids_.begin(), ids_.end()}, static_cast<Index>(ids_.size()) / tokens);
  }

  void run(Keep keep) {
    logits();
    greedy();
    gradients_and_step(keep);
  }

 private:
  void logits() {
    const auto golden = read<float>(expected_, "logits");
    CHECK(largest_difference(model_.logits(batch_), golden) <= Limit::logits * largest(golden));
    const double loss = read<double>(expected_, "loss").front();
    CHECK(std::abs(model_.loss(batch_) - loss) <= Limit::logits * std::abs(loss));
  }

  void greedy() {
    const auto golden = read<std::int64_t>(expected_, "greedy");
    const std::vector<Token> all(golden.begin(), golden.end()), prompt(all.begin(), all.begin() + 8);
    const auto continued = model_.generate(prompt, {.max_new_tokens = static_cast<Index>(all.size()) - 8});
    CHECK(continued == std::vector<Token>(all.begin() + 8, all.end()));
  }

  void gradients_and_step(Keep keep) {
    Trainer<Model> trainer(model_, {.sequences = batch_.sequences,
                                    .tokens = batch_.tokens,
                                    .keep = keep,
                                    .adamw = {.weight_decay = 0.1},
                                    .max_grad_norm = 1.0});
    const StepResult result = trainer.step(std::span(&batch_, 1), 1e-3);
    const double loss = read<double>(expected_, "loss").front(),
                 norm = read<double>(expected_, "grad_norm").front();
    CHECK(std::abs(result.loss - loss) <= Limit::logits * std::abs(loss));
    CHECK(std::abs(result.grad_norm - norm) <= Limit::gradients * norm);
    const double largest_gradient = largest_of_all_gradients();
    model_.store().each([&](const OwnedBy<B>& p) {
      const std::string name(p.name);
      INFO(name);
      compare_gradient(name, values(p.gradient.flat()), largest_gradient);
      const auto after = read<float>(expected_, "step." + name);
      // A gradient that is zero in mathematics leaves rounding for AdamW to normalise: nothing to compare.
      if (!vanishes(read<float>(expected_, "grad." + name)))
        CHECK(largest_difference(values(p.weight.flat()), after) <= Limit::step * largest(after));
    });
  }

  void compare_gradient(const std::string& name, const std::vector<T>& gradient, double largest_gradient) {
    const auto golden = read<float>(expected_, "grad." + name);
    if (vanishes(golden)) {
      CHECK(largest(gradient) <= (Limit::gradients_by_tensor ? 1e-12 : Limit::gradients * largest_gradient));
    } else {
      const double scale = Limit::gradients_by_tensor ? largest(golden) : largest_gradient;
      CHECK(largest_difference(gradient, golden) <= Limit::gradients * scale);
    }
  }

  double largest_of_all_gradients() {
    double most = 0;
    for (const auto& info : expected_.tensors())
      if (info.name.starts_with("grad.")) most = std::max(most, largest(read<float>(expected_, info.name)));
    return most;
  }

  static bool vanishes(const std::vector<float>& golden) { return largest(golden) < 1e-12; }
  std::vector<T> values(View<T> view) {
    std::vector<T> host(static_cast<std::size_t>(view.count()));
    model_.backend().to_host(view, host.data());
    return host;
  }

  io::SafetensorsFile expected_;
  Model model_;
  std::vector<std::int64_t> ids_;
  Batch batch_;
};

/// Whether this build's tests have models of that many replicas: each costs a sanitizing compiler ten
/// seconds.
constexpr bool tests_have(int replicas) {
#ifdef PARSCALE_FEW_GOLDENS
  return replicas == 1 || replicas == 4;
#else
  return replicas > 0;
#endif
}

/// Runs every golden case whose architecture is one of these, in float64 and float32. Returns how many there
/// were.
template <Architecture... compiled>
int run_goldens_of() {
  int ran = 0;
  for (const auto& folder : golden_cases()) {
    const Architecture wanted =
        io::parse_model_config(io::read_json(folder / "config.json"), folder.string()).architecture;
    const auto run = [&]<Architecture arch>() {
      if constexpr (tests_have(arch.replicas)) {
        if (!(wanted == arch)) return;
        ++ran;
        INFO("case " << folder.filename().string());
        const auto on = [&]<class T>(T, int threads, Keep keep) {
          GoldenCase<CausalLM<arch, Cpu<T>>>(folder, Cpu<T>({.threads = threads})).run(keep);
        };
        on(double{}, 2, Keep::everything);
        on(double{}, 1, Keep::layer_inputs);
        on(double{}, 1, Keep::products);
        on(float{}, 2, Keep::everything);
      }
    };
    (run.template operator()<compiled>(), ...);
  }
  return ran;
}

}  // namespace parscale::test
