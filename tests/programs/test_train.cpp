// parscale-train: what a run leaves behind, and that nothing that happens to it changes the result.
#include <catch2/generators/catch_generators.hpp>
#include <parscale/io/safetensors.hpp>

#include "program.hpp"

using namespace parscale::test;
using parscale::io::Json;

namespace {

std::string weights(const fs::path& folder) { return read_text(folder / "model.safetensors"); }

std::vector<Json> metrics(const fs::path& folder) {
  std::vector<Json> lines;
  std::ifstream file(folder / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) lines.push_back(parscale::io::parse_json(line, "output"));
  return lines;
}

/// The run that all others are compared with: six steps without a break.
std::string uninterrupted(const Scratch& scratch, const std::vector<std::string>& more = {}) {
  const Outcome outcome = run(scratch, "train", tiny_run(scratch, "whole") + more);
  REQUIRE(outcome.code == 0);
  return weights(scratch / "whole");
}

}  // namespace

TEST_CASE("A run ends with a Hugging Face directory, its tokenizer, metrics and a picture") {
  const Scratch scratch;
  uninterrupted(scratch);
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json", "metrics.jsonl", "loss.svg"})
    CHECK(fs::exists(scratch / "whole" / name));
  const auto lines = metrics(scratch / "whole");
  REQUIRE(lines.size() == 6);
  CHECK(lines.back()["step"] == 6);
  CHECK(lines.back()["loss"].get<double>() < lines.front()["loss"].get<double>());
  CHECK(lines.back()["tokens"] == 6 * 4 * 31);
}

TEST_CASE("Two runs of the same options have the same bits, whatever the number of threads") {
  const Scratch scratch;
  const std::string whole = uninterrupted(scratch);
  for (const char* threads : {"1", "3"}) {
    REQUIRE(
        run(scratch, "train",
            tiny_run(scratch, "again") + std::vector<std::string>{std::string("training.threads=") + threads,
                                                                  "training.overwrite_output_dir=true"})
            .code == 0);
    CHECK(weights(scratch / "again") == whole);
  }
}

TEST_CASE("A resumed run has the same bits as one without a break") {
  const Scratch scratch;
  const bool four = GENERATE(false, true);
  const std::vector<std::string> kind =
      four ? std::vector<std::string>{"parscale.parscale_n=4", "parscale.parscale_n_tokens=4"}
           : std::vector<std::string>{};
  const std::string whole = uninterrupted(scratch, kind);
  const auto part = tiny_run(scratch, "part") + kind;
  REQUIRE(run(scratch, "train",
              part + std::vector<std::string>{"training.max_steps=4", "training.save_steps=2",
                                              "training.save_total_limit=1"})
              .code == 0);
  CHECK(fs::exists(scratch / "part" / "checkpoint-4"));
  CHECK_FALSE(fs::exists(scratch / "part" / "checkpoint-2"));
  const Outcome resumed =
      run(scratch, "train", part + std::vector<std::string>{"training.resume_from_checkpoint=true"});
  REQUIRE(resumed.code == 0);
  CHECK(has(resumed.out, "step 4"));
  CHECK(weights(scratch / "part") == whole);
  CHECK(metrics(scratch / "part").size() == 6);
}

TEST_CASE("SIGTERM saves, says how to go on, and the run that goes on has the same bits") {
  const Scratch scratch;
  const std::string whole = uninterrupted(scratch, {"training.max_steps=60"});
  const auto words = tiny_run(scratch, "stopped") + std::vector<std::string>{"training.max_steps=60"};
  Started started(scratch, "train", words);
  REQUIRE(started.wait_for("step  3/60"));
  started.signal(SIGTERM);
  const Outcome stopped = started.wait();
  CHECK(stopped.code == 128 + SIGTERM);
  CHECK(has(stopped.out, "training.resume_from_checkpoint=true"));
  REQUIRE(
      run(scratch, "train", words + std::vector<std::string>{"training.resume_from_checkpoint=true"}).code ==
      0);
  CHECK(weights(scratch / "stopped") == whole);
}

TEST_CASE("A run that is killed at any time goes on from its last checkpoint to the same bits") {
  const Scratch scratch;
  const std::vector<std::string> more{"training.max_steps=40", "training.save_steps=1"};
  const std::string whole = uninterrupted(scratch, more);
  const auto words = tiny_run(scratch, "killed") + more;
  for (int milliseconds : {150, 320, 410, 530, 290}) {
    Started started(scratch, "train",
                    words + std::vector<std::string>{"training.resume_from_checkpoint=true"});
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    started.signal(SIGKILL);
    started.wait();
  }
  REQUIRE(
      run(scratch, "train", words + std::vector<std::string>{"training.resume_from_checkpoint=true"}).code ==
      0);
  CHECK(weights(scratch / "killed") == whole);
}

TEST_CASE("A flipped bit in the newest checkpoint costs the steps since the one before, and is told") {
  const Scratch scratch;
  const std::string whole = uninterrupted(scratch);
  const auto words = tiny_run(scratch, "damaged");
  REQUIRE(run(scratch, "train",
              words + std::vector<std::string>{"training.max_steps=4", "training.save_steps=2",
                                               "training.save_total_limit=2"})
              .code == 0);
  const fs::path file = scratch / "damaged" / "checkpoint-4" / "optimizer.safetensors";
  std::string bytes = read_text(file);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  write_text(file, bytes);

  const Outcome explicitly =
      run(scratch, "train",
          words + std::vector<std::string>{"training.resume_from_checkpoint=" +
                                           (scratch / "damaged" / "checkpoint-4").string()});
  CHECK(explicitly.code == 4);
  CHECK(has(explicitly.err, "optimizer.safetensors"));
  const Outcome resumed =
      run(scratch, "train", words + std::vector<std::string>{"training.resume_from_checkpoint=true"});
  REQUIRE(resumed.code == 0);
  CHECK(has(resumed.err, "passed over"));
  CHECK(weights(scratch / "damaged") == whole);
}

TEST_CASE("A checkpoint of a run with other options is refused") {
  const Scratch scratch;
  REQUIRE(run(scratch, "train",
              tiny_run(scratch, "one") +
                  std::vector<std::string>{"training.max_steps=2", "training.save_steps=2"})
              .code == 0);
  const Outcome other =
      run(scratch, "train",
          tiny_run(scratch, "one") +
              std::vector<std::string>{"training.seed=43", "training.resume_from_checkpoint=true"});
  CHECK(other.code == 2);
  CHECK(has(other.err, "seed"));
}

TEST_CASE("Two runs never write into one folder; the lock goes with its holder, however it ends") {
  const Scratch scratch;
  const auto words = tiny_run(scratch, "shared") + std::vector<std::string>{"training.max_steps=2000"};
  Started first(scratch, "train", words);
  REQUIRE(first.wait_for("step  "));
  const Outcome second = run(scratch, "train", words);
  CHECK(second.code == 2);
  CHECK(has(second.err, "Another program is writing into this directory"));
  CHECK(has(second.err, "process "));
  first.signal(SIGKILL);
  first.wait();
  CHECK(run(scratch, "train", tiny_run(scratch, "shared")).code == 0);
}

TEST_CASE("The training.yaml of a run repeats it") {
  const Scratch scratch;
  const std::string whole = uninterrupted(scratch, {"training.learning_rate=0.02", "parscale.parscale_n=4"});
  const Outcome again = run(scratch, "train",
                            {"--config", (scratch / "whole" / "training.yaml").string(),
                             "training.output_dir=" + (scratch / "again").string()});
  INFO(again.err);
  REQUIRE(again.code == 0);
  CHECK(weights(scratch / "again") == whole);
}

TEST_CASE("An earlier run's output is not written over by accident") {
  const Scratch scratch;
  const auto words =
      tiny_run(scratch, "kept") + std::vector<std::string>{"training.max_steps=2", "training.save_steps=2"};
  REQUIRE(run(scratch, "train", words).code == 0);
  const Outcome again = run(scratch, "train", words);
  CHECK(again.code == 2);
  CHECK(has(again.err, "overwrite_output_dir"));
}

TEST_CASE("Numbers that are not finite stop the run before the update, with exit code 6") {
  const Scratch scratch;
  const Outcome outcome =
      run(scratch, "train",
          tiny_run(scratch, "wild") +
              std::vector<std::string>{"training.learning_rate=1000", "training.max_steps=60",
                                       "training.max_grad_norm=0", "training.warmup_steps=0"});
  CHECK(outcome.code == 6);
  CHECK(has(outcome.err, "step"));
  CHECK(has(outcome.err, "training.learning_rate"));
}

TEST_CASE("Held-out text is evaluated, and accumulation does not change the loss") {
  const Scratch scratch;
  const Outcome outcome =
      run(scratch, "train",
          tiny_run(scratch, "eval") +
              std::vector<std::string>{"training.eval_fraction=0.2", "training.eval_steps=3"});
  REQUIRE(outcome.code == 0);
  CHECK(has(outcome.out, "held-out loss"));
  int evaluations = 0;
  for (const Json& line : metrics(scratch / "eval")) evaluations += line.contains("eval_loss");
  CHECK(evaluations == 2);
}

TEST_CASE("Only what training.trainable names is trained") {
  const Scratch scratch;
  uninterrupted(scratch);
  const std::vector<std::string> words{"training.base_model=" + (scratch / "whole").string(),
                                       "training.dataset=" + (scratch / "page.txt").string(),
                                       "training.output_dir=" + (scratch / "frozen").string(),
                                       "parscale.parscale_n=4",
                                       "parscale.parscale_n_tokens=4",
                                       "training.max_steps=3",
                                       "training.max_length=32",
                                       "training.warmup_steps=0",
                                       "training.trainable=prefix,aggregate",
                                       "training.logging_steps=1"};
  REQUIRE(run(scratch, "train", words).code == 0);
  const parscale::io::SafetensorsFile before(scratch / "whole" / "model.safetensors"),
      after(scratch / "frozen" / "model.safetensors");
  int same = 0, added = 0;
  for (const auto& info : after.tensors()) {
    const auto* old = before.find(info.name);
    if (old == nullptr) {
      CHECK((has(info.name, "prefix") || has(info.name, "aggregate")));
      ++added;
      continue;
    }
    const auto a = before.bytes(*old), b = after.bytes(info);
    CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
    ++same;
  }
  CHECK(same > 10);
  CHECK(added == 2 * 2 + 4);
}
