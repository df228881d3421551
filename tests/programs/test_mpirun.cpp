// parscale-train under mpirun: MPI connects the ranks of one host, TCP when it is asked for.
#include <catch2/generators/catch_generators.hpp>

#include "../support/mpirun.hpp"
#include "world.hpp"

using namespace parscale::test;

#ifdef PARSCALE_WITH_MPI

namespace {

std::string quoted(const std::string& word) { return "'" + word + "'"; }

/// parscale-train on that many ranks.
UnderMpirun train_under_mpirun(const Scratch& scratch, int ranks, const Words& words) {
  std::string command = "env -u CONFIG_FILE HF_HOME=" + quoted((scratch / "no-hub").string()) +
                        " XDG_CACHE_HOME=" + quoted((scratch / "cache").string()) + " " +
                        quoted((program_dir / "parscale-train").string());
  for (const std::string& word : words) command += " " + quoted(word);
  return mpirun(ranks, command);
}

/// Qwen2-7B in the size of a CI machine: its proportions at a quarter of its width (one of its four
/// key/value groups), 2 of its 28 layers, and the vocabulary of the novels. P = 8, prefixes of 48.
Words small_qwen2_7b(const Scratch& scratch, const std::string& output) {
  const fs::path config = scratch / "qwen2-7b.yaml";
  write_text(config,
             "model: {model_type: qwen2, vocab_size: 4096, hidden_size: 896, intermediate_size: 4736, "
             "num_hidden_layers: 2, num_attention_heads: 7, num_key_value_heads: 1, rope_theta: 1000000.0, "
             "rms_norm_eps: 1.0e-06, tie_word_embeddings: false, eos_token_id: 0}\n"
             "parscale: {parscale_n: 8, enable_cross_attn: true, "
             "parscale_cross_attn_layers: [0, 4, 8, 12, 16, 20, 24, 28]}\n"
             "training: {dataset: " +
                 (source_dir / "data/austen/persuasion.txt").string() +
                 ", tokenizer: " + (source_dir / "data/austen-bpe4096/tokenizer.json").string() +
                 ", max_length: 8, global_batch_size: 8, per_device_train_batch_size: 1, max_steps: 1, "
                 "lr_scheduler_type: constant, learning_rate: 0.001, logging_steps: 1, eval_fraction: 0.1, "
                 "per_device_eval_batch_size: 1, max_eval_samples: 8, ddp_timeout: 60}\n");
  return {"--config", config.string(), "training.output_dir=" + (scratch / output).string()};
}

void check_close(const std::vector<double>& got, const std::vector<double>& expected, double tolerance) {
  REQUIRE(got.size() == expected.size());
  REQUIRE_FALSE(got.empty());
  for (std::size_t i = 0; i < got.size(); ++i)
    CHECK(std::abs(got[i] - expected[i]) < tolerance * std::abs(expected[i]));
}

}  // namespace

TEST_CASE("Ranks of mpirun have the losses and the weights of one process") {
  const Scratch scratch;
  const Words exact{one_sequence, "training.dtype=float64"};
  train(scratch, 1, small_run(scratch, "one", exact));
  for (const std::string communicator : {"mpi", "tcp", "auto"}) {
    const UnderMpirun run = train_under_mpirun(
        scratch, 3, small_run(scratch, communicator, exact + Words{"training.communicator=" + communicator}));
    INFO(run.text);
    REQUIRE(run.status == 0);
    check_close(measured(scratch / communicator, "loss"), measured(scratch / "one", "loss"), 1e-9);
    CHECK(difference(scratch / "one", scratch / communicator) < 1e-8);
  }
}

TEST_CASE("A rank of mpirun with other options is named, and nobody waits") {
  const Scratch scratch;
  const Words words = small_run(scratch, "differ", {one_sequence});
  std::string text;
  for (const std::string& word : words) text += " " + quoted(word);
  const std::string program = quoted((program_dir / "parscale-train").string()) + text;
  const UnderMpirun run = mpirun(1, program + " : -n 1 " + program + " training.seed=43");
  INFO(run.text);
  CHECK(run.status != 0);
  CHECK(run.seconds < 20);
  CHECK(has(run.text, "The ranks do not agree on training.seed"));
}

TEST_CASE("Eight ranks take a step of Qwen2-7B's layers with eight replicas as one process does") {
  const Scratch scratch;
  const Words words = small_qwen2_7b(scratch, "one");
  const Outcome one = run(scratch, "train", words);
  if (one.code == 2 && has(one.err, "not built for this")) SKIP("needs head size 128 and eight replicas");
  REQUIRE(one.code == 0);
  CHECK(has(one.err, "cross"));
  const UnderMpirun many = train_under_mpirun(scratch, 8, small_qwen2_7b(scratch, "many"));
  INFO(many.text);
  REQUIRE(many.status == 0);
  for (const char* what : {"loss", "grad_norm", "eval_loss"})  // the last with the weights after the step
    check_close(measured(scratch / "many", what), measured(scratch / "one", what), 1e-5);
}

#else

TEST_CASE("parscale-train under mpirun") { SKIP("built without the component mpi"); }

#endif
