/// Rules between keys, and how options meet the configuration of a base model.
#include <common/options_model.hpp>

#include "given.hpp"

using namespace parscale;
using namespace parscale::program;

TEST_CASE("Naming layers switches cross-attention on, unless a word of the same or greater weight says no") {
  const Options on = from_words({"parscale.parscale_cross_attn_layers=[0,4]"});
  CHECK(on.parscale.enable_cross_attn);
  CHECK(contains(on.notes, "switches cross-attention on"));
  CHECK(from_yaml("parscale:\n  enable_cross_attn: false\n", {"parscale.parscale_cross_attn_layers=[0]"})
            .parscale.enable_cross_attn);
  CHECK_FALSE(
      from_yaml("parscale:\n  parscale_cross_attn_layers: [0]\n", {"parscale.enable_cross_attn=false"})
          .parscale.enable_cross_attn);
  CHECK_FALSE(from_words({"parscale.enable_cross_attn=false", "parscale.parscale_cross_attn_layers=[0]"})
                  .parscale.enable_cross_attn);
}

TEST_CASE("Asking for anything about evaluation asks for evaluation") {
  CHECK(from_words({"training.eval_fraction=0.1"}).training.eval_strategy == Strategy::steps);
  CHECK(from_words({"training.eval_dataset=a.txt"}).training.eval_strategy == Strategy::steps);
  CHECK(from_words({"training.eval_fraction=0"}).training.eval_strategy == Strategy::no);
  CHECK(from_words({"training.eval_fraction=0.1", "training.eval_strategy=no"}).training.eval_strategy ==
        Strategy::no);
}

TEST_CASE("Evaluation without text to evaluate on is refused") {
  CHECK(contains(refusal_of_words({"training.eval_strategy=steps"}), "no text to evaluate on"));
  CHECK(contains(refusal_of_words({"training.eval_steps=10"}), "eval_fraction=0.01"));
}

TEST_CASE("eval_steps follows logging_steps until it is given") {
  CHECK(from_words({"training.logging_steps=7"}).training.eval_steps == 7);
  CHECK(from_words({"training.eval_steps=None"}).training.eval_steps == 1000);
  CHECK(from_words({"training.eval_steps=None"}).training.eval_strategy == Strategy::no);
  CHECK(from_words({"training.eval_steps=5", "training.eval_fraction=0.1"}).training.eval_steps == 5);
}

TEST_CASE("A held-out share beside a dataset of its own is warned about") {
  const Options o = from_words({"training.eval_dataset=a.txt", "training.eval_fraction=0.1"});
  CHECK(o.training.eval_fraction == 0);
  CHECK(contains(o.warnings, "eval_fraction has no effect"));
}

TEST_CASE("A model is either loaded or built, and what was said later counts") {
  CHECK(contains(refusal_of_words({"training.base_model=a", "model.hidden_size=8"}), "either loaded"));
  const Options loaded = from_yaml("model:\n  hidden_size: 8\n", {"training.base_model=a"});
  CHECK_FALSE(loaded.model.has_value());
  CHECK(contains(loaded.notes, "section model has no effect"));
  CHECK(from_yaml("training:\n  base_model: a\n  tokenizer: t\n", {"model.hidden_size=8"}).model.has_value());
}

TEST_CASE("A model built from scratch needs a tokenizer") {
  CHECK(contains(refusal_of_words({"model.hidden_size=8"}), "training.tokenizer"));
}

TEST_CASE("The output folder must not be the base model's") {
  const TemporaryFolder folder;
  const std::string path = folder.path().string();
  CHECK(contains(refusal_of_words({"training.base_model=" + path, "training.output_dir=" + path + "/."}),
                 "must not be the folder of the base model"));
}

TEST_CASE("Starting anew and going on contradict each other") {
  CHECK(contains(
      refusal_of_words({"training.overwrite_output_dir=true", "training.resume_from_checkpoint=true"}),
      "contradict"));
}

TEST_CASE("A warmup longer than the run is warned about") {
  CHECK(contains(from_words({"training.max_steps=200"}).warnings, "ends near 3e-05"));
  CHECK(from_words({"training.max_steps=200", "training.warmup_steps=20"}).warnings.empty());
  CHECK(contains(from_words({"training.lr_scheduler_type=constant", "training.warmup_steps=20"}).warnings,
                 "has no warmup"));
}

TEST_CASE("warmup_stable_decay decays over a tenth of the run unless told otherwise") {
  const Words wsd{"training.lr_scheduler_type=warmup_stable_decay", "training.max_steps=5000"};
  CHECK(from_words(wsd).training.lr_decay_steps == 500);
  Words long_decay = wsd;
  long_decay.emplace_back("training.lr_decay_steps=4000");
  CHECK(contains(refusal_of_words(long_decay), "longer than the run"));
}

TEST_CASE("Decay options of another schedule are warned about") {
  CHECK(contains(from_words({"training.lr_decay_steps=10"}).warnings, "lr_decay_steps has no effect"));
  CHECK(contains(from_words({"training.min_lr_ratio=0.1"}).warnings, "min_lr_ratio has no effect"));
}

TEST_CASE("Sums that are rounded are not deterministic") {
  const auto rounded = from_words({"training.gradient_reduction_dtype=bfloat16"});
  CHECK(rounded.training.gradient_reduction_dtype == Precision::bfloat16);
  CHECK(contains(
      refusal_of_words({"training.gradient_reduction_dtype=bfloat16", "training.deterministic=true"}),
      "contradict"));
}

TEST_CASE("A group size asks for hybrid sharding") {
  const Options o = from_words({"training.sharding=hybrid", "training.sharding_group_size=4"});
  CHECK((o.training.sharding == Sharding::hybrid && o.training.sharding_group_size == 4));
  CHECK(o.warnings.empty());
  CHECK(contains(from_words({"training.sharding_group_size=4"}).warnings, "no effect"));
}

TEST_CASE("A GPU and bfloat16 are refused where there are none") {
  CHECK(contains(refusal_of_words({"training.device=cuda"}), "without CUDA"));
  CHECK(contains(refusal_of_words({"training.dtype=bfloat16"}), "not possible on the CPU"));
  CHECK(from_words({"training.device=cuda", "training.dtype=bfloat16"}, {.cuda = true}).training.dtype ==
        Precision::bfloat16);
}

TEST_CASE("bf16 is bfloat16 on a GPU and a note on a CPU") {
  const Options cpu = from_words({"training.bf16=True"});
  CHECK(cpu.training.dtype == Precision::float32);
  CHECK(contains(cpu.notes, "bf16"));
  const Options gpu = from_words({"training.bf16=True"}, {.cuda = true});
  CHECK(gpu.training.dtype == Precision::bfloat16);
  CHECK(gpu.notes.empty());
}

TEST_CASE("A base model keeps its own values unless the user gave others") {
  const io::Json base{{"parscale_n", 8}, {"parscale_attn_smooth", 0.1}, {"hidden_size", 64}};
  const MergedConfig merged = merge_model_config(from_words({"parscale.parscale_n=4"}), base);
  CHECK(merged.config["parscale_n"] == 4);
  CHECK(merged.config["parscale_attn_smooth"] == 0.1);
  CHECK(merged.config["parscale_n_tokens"] == 48);
  CHECK(merged.config["hidden_size"] == 64);
  CHECK(contains(merged.notes, "parscale.parscale_n=4 replaces the model's own 8"));
}

TEST_CASE("A plain base model takes all parscale options, lists and words included") {
  const MergedConfig merged = merge_model_config(
      from_words({"parscale.parscale_cross_attn_layers=[3,0]", "parscale.parscale_cross_attn_kind=sublayer"}),
      {});
  CHECK(merged.config["parscale_cross_attn_layers"] == io::Json({0, 3}));
  CHECK(merged.config["parscale_cross_attn_kind"] == "sublayer");
  CHECK(merged.config["enable_cross_attn"] == true);
  CHECK(merge_model_config(from_words({}), {}).config["parscale_cross_attn_layers"].is_null());
}

TEST_CASE("Cross-attention options without cross-attention are warned about") {
  CHECK(contains(merge_model_config(from_words({"parscale.parscale_cross_attn_kind=sublayer"}), {}).warnings,
                 "parscale_cross_attn_kind has no effect"));
  CHECK(contains(
      merge_model_config(from_words({"--parscale.enable_cross_attn", "--parscale.enable_replica_rope"}), {})
          .warnings,
      "enable_replica_rope has no effect"));
}
