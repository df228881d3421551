// The programs on a GPU, as a user starts them: what a run says, that nothing that happens to it changes its
// bits, and that its checkpoints go on elsewhere.
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <parscale/backend/cuda/device.hpp>
#include <parscale/io/safetensors.hpp>

#include "programs/program.hpp"

namespace parscale::test {
namespace {

using io::Json;
using Words = std::vector<std::string>;

void need_a_gpu() {
  if (cuda::device_count() == 0) SKIP("there is no GPU");
}

const Words without_a_gpu{"CUDA_VISIBLE_DEVICES="};

std::string weights(const fs::path& folder) { return read_text(folder / "model.safetensors"); }

std::vector<Json> metrics(const fs::path& folder) {
  std::vector<Json> lines;
  std::ifstream file(folder / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) lines.push_back(io::parse_json(line, "metrics.jsonl"));
  return lines;
}

Words kind_of(int replicas, const std::string& crossing) {
  Words words{"parscale.parscale_n=" + std::to_string(replicas), "parscale.parscale_n_tokens=4"};
  if (!crossing.empty())
    words = words + Words{"parscale.enable_cross_attn=true", "parscale.parscale_cross_attn_kind=" + crossing};
  return words;
}

/// Six steps without a break, where the options say.
std::string uninterrupted(const Scratch& scratch, const Words& more = {}) {
  const Outcome outcome = run(scratch, "train", tiny_run(scratch, "whole") + more);
  REQUIRE(outcome.code == 0);
  return weights(scratch / "whole");
}

/// The largest difference of two models' weights, as a part of the largest weight.
double difference(const fs::path& one, const fs::path& other) {
  const io::SafetensorsFile a(one / "model.safetensors"), b(other / "model.safetensors");
  double most = 0, largest = 0;
  for (const auto& info : a.tensors()) {
    const auto* same = b.find(info.name);
    REQUIRE(same != nullptr);
    std::vector<float> x(info.count()), y(same->count());
    a.read(info, std::span<float>(x));
    b.read(*same, std::span<float>(y));
    REQUIRE(x.size() == y.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      most = std::max(most, std::abs(static_cast<double>(x[i]) - static_cast<double>(y[i])));
      largest = std::max(largest, std::abs(static_cast<double>(x[i])));
    }
  }
  return most / largest;
}

Words stopping_after(int steps, const Scratch& scratch, const std::string& output, const Words& more) {
  return tiny_run(scratch, output) +
         Words{"training.max_steps=" + std::to_string(steps), "training.save_steps=2"} + more;
}

}  // namespace

TEST_CASE("A run finds the GPU by itself, says what it takes and how well it is used, and repeats its bits") {
  need_a_gpu();
  const Scratch scratch;
  const auto [replicas, crossing] =
      GENERATE(std::pair{1, ""}, std::pair{4, ""}, std::pair{4, "expanded"}, std::pair{4, "sublayer"});
  const Words kind = kind_of(replicas, crossing);
  const Words words =
      tiny_run(scratch, "whole") + kind + Words{"training.eval_fraction=0.2", "training.eval_steps=3"};
  const Outcome outcome = run(scratch, "train", words);
  REQUIRE(outcome.code == 0);
  for (const char* part : {"NVIDIA", "keeping   training.recompute=", "planned", "% MFU", "held-out loss"})
    CHECK(has(outcome.out, part));
  for (const Json& line : metrics(scratch / "whole")) {
    if (line.contains("eval_loss")) continue;
    CHECK(line["mfu"].get<double>() > 0);
    CHECK(line["memory"].get<double>() > 1e8);
  }
  const std::string first = weights(scratch / "whole");
  REQUIRE(run(scratch, "train", words + Words{"training.overwrite_output_dir=true", "training.device=cuda"})
              .code == 0);
  CHECK(weights(scratch / "whole") == first);
}

TEST_CASE("On a GPU a resumed run has the same bits as one without a break") {
  need_a_gpu();
  const Scratch scratch;
  const Words kind = kind_of(GENERATE(1, 4), "") + Words{"training.device=cuda"};
  const std::string whole = uninterrupted(scratch, kind);
  REQUIRE(run(scratch, "train", stopping_after(4, scratch, "part", kind)).code == 0);
  const Words going_on{"training.resume_from_checkpoint=true"};
  REQUIRE(run(scratch, "train", tiny_run(scratch, "part") + kind + going_on).code == 0);
  CHECK(weights(scratch / "part") == whole);
}

TEST_CASE("On a GPU SIGTERM saves, and the run that goes on has the same bits") {
  need_a_gpu();
  const Scratch scratch;
  const Words more = kind_of(4, "") + Words{"training.device=cuda", "training.max_steps=400"};
  const std::string whole = uninterrupted(scratch, more);
  const Words words = tiny_run(scratch, "stopped") + more;
  Started started(scratch, "train", words);
  REQUIRE(started.wait_for("step   3/400"));
  started.signal(SIGTERM);
  const Outcome stopped = started.wait();
  CHECK(stopped.code == 128 + SIGTERM);
  CHECK(has(stopped.out, "training.resume_from_checkpoint=true"));
  REQUIRE(run(scratch, "train", words + Words{"training.resume_from_checkpoint=true"}).code == 0);
  CHECK(weights(scratch / "stopped") == whole);
}

TEST_CASE("A run moves from the CPU to the GPU and back, and ends where it would have ended") {
  need_a_gpu();
  const Scratch scratch;
  const Words on_cpu{"training.device=cpu"}, on_gpu{"training.device=cuda", "training.dtype=float32"};
  const Words kind = kind_of(4, "");
  uninterrupted(scratch, kind + on_cpu);
  const Words going_on = kind + Words{"training.resume_from_checkpoint=true"};
  REQUIRE(run(scratch, "train", stopping_after(2, scratch, "moved", kind + on_cpu)).code == 0);
  const Outcome there = run(scratch, "train", stopping_after(4, scratch, "moved", going_on + on_gpu));
  REQUIRE(there.code == 0);
  CHECK(has(there.out, "step 2"));
  REQUIRE(run(scratch, "train", tiny_run(scratch, "moved") + going_on + on_cpu).code == 0);
  CHECK(metrics(scratch / "moved").size() == 6);
  CHECK(difference(scratch / "whole", scratch / "moved") < 1e-3);
  // bfloat16 has the same master weights and moments: it takes the checkpoint, too
  REQUIRE(run(scratch, "train",
              tiny_run(scratch, "moved") + going_on +
                  Words{"training.device=cuda", "training.dtype=bfloat16", "training.max_steps=8"})
              .code == 0);
}

TEST_CASE("parscale-evaluate and parscale-generate give the reference's numbers on a GPU") {
  need_a_gpu();
  const Scratch scratch;
  const std::string model =
      source_dir / "tests/data/goldens" / GENERATE("p4_hd64_long", "p4_hd64_sublayer", "p8_hd128_long");
  if (run(scratch, "evaluate", {model, "--input-ids", model + "/expected.safetensors", "--device", "cpu"})
          .code == 2)
    SKIP("the programs are not compiled for this model");
  const io::SafetensorsFile expected(fs::path(model) / "expected.safetensors");
  double loss = 0;
  expected.read(*expected.find("loss"), std::span<double>(&loss, 1));
  for (const auto& [dtype, allowed] : {std::pair{"float32", 1e-5}, {"tf32", 3e-3}, {"bfloat16", 1e-2}}) {
    const Outcome evaluated = run(scratch, "evaluate",
                                  {model, "--input-ids", model + "/expected.safetensors", "--device", "cuda",
                                   "--dtype", dtype, "--json"});
    REQUIRE(evaluated.code == 0);
    const double is = io::parse_json(evaluated.last_line(), "output")["loss"].get<double>();
    INFO(dtype << ": " << is << ", the reference has " << loss);
    CHECK(std::abs(is - loss) <= allowed * loss);
    CHECK((is != loss || std::string(dtype) == "float32"));
  }
  std::vector<std::int64_t> ids(expected.find("greedy")->count());
  expected.read(*expected.find("greedy"), std::span<std::int64_t>(ids));
  const auto joined = [&](std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text += (i > 0 ? "," : "") + std::to_string(ids[i]);
    return text;
  };
  const Outcome generated =
      run(scratch, "generate",
          {model, "--prompt-ids", joined(8), "--max-new-tokens", std::to_string(ids.size() - 8),
           "--ignore-eos", "--print-ids", "--device", "cuda", "--dtype", "float32"});
  REQUIRE(generated.code == 0);
  CHECK(generated.last_line() == joined(ids.size()));
}

TEST_CASE("A model that no GPU holds is refused before anything is allocated, with advice") {
  need_a_gpu();
  const Scratch scratch;
  tiny_run(scratch, "large", "12");
  std::string config = read_text(scratch / "tiny.yaml");
  const auto enlarge = [&](const std::string& from, const std::string& to) {
    config.replace(config.find(from), from.size(), to);
  };
  enlarge("hidden_size: 32", "hidden_size: 16384");
  enlarge("intermediate_size: 48", "intermediate_size: 65536");
  write_text(scratch / "large.yaml", config);
  const Outcome outcome = run(scratch, "train",
                              {"--config", (scratch / "large.yaml").string(), "training.device=cuda",
                               "training.output_dir=" + (scratch / "large").string()});
  CHECK(outcome.code == 2);
  CHECK(has(outcome.err, "does not fit the GPU"));
  CHECK(has(outcome.err, "GiB are planned"));
  CHECK(has(outcome.err, "GPUs that share the model"));
}

TEST_CASE("Without a GPU training.device=cuda is a clear error, and auto is the CPU") {
  const Scratch scratch;
  const Words one_step{"training.max_steps=1"};
  const Outcome refused =
      run(scratch, "train", tiny_run(scratch, "refused") + Words{"training.device=cuda"}, without_a_gpu);
  CHECK(refused.code == 2);
  CHECK(has(refused.err, "training.device=cuda is not possible here"));
  CHECK(has(refused.err, "there is no GPU"));
  CHECK(has(refused.err, "training.device=cpu"));
  CHECK_FALSE(fs::exists(scratch / "refused"));
  const Outcome automatic = run(scratch, "train", tiny_run(scratch, "automatic") + one_step, without_a_gpu);
  CHECK(automatic.code == 0);
  CHECK(has(automatic.out, "thread"));
  const Words prompt{(scratch / "automatic").string(), "--prompt", "Anne"};
  const Outcome no_gpu = run(scratch, "generate", prompt + Words{"--device", "cuda"}, without_a_gpu);
  CHECK(no_gpu.code == 2);
  CHECK(has(no_gpu.err, "--device=cuda is not possible here"));
  const Outcome no_type = run(scratch, "generate", prompt + Words{"--dtype", "bfloat16"}, without_a_gpu);
  CHECK(no_type.code == 2);
  CHECK(has(no_type.err, "use --dtype=float32"));
}

}  // namespace parscale::test
