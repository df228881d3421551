/// Every form in which an option can be given, and which of several words counts.
#include <cstdlib>

#include "given.hpp"

using namespace parscale;
using namespace parscale::program;

TEST_CASE("Without a word every option has the seed's default") {
  const Options o = from_words({});
  CHECK(o.parscale.parscale_n == 1);
  CHECK(o.parscale.parscale_n_tokens == 48);
  CHECK(o.parscale.parscale_attn_smooth == 0.01);
  CHECK_FALSE(o.parscale.enable_cross_attn);
  CHECK_FALSE(o.parscale.parscale_cross_attn_layers.has_value());
  CHECK(o.parscale.parscale_cross_attn_kind == CrossAttention::expanded);
  CHECK(o.training.base_model == "Qwen/Qwen2-1.5B");
  CHECK(o.training.dataset == "pajama");
  CHECK(o.training.output_dir == "./parscale-model");
  CHECK(o.training.max_length == 2048);
  CHECK(o.training.per_device_train_batch_size == 4);
  CHECK(o.training.gradient_accumulation_steps == 4);
  CHECK(o.training.max_steps == 76294);
  CHECK(o.training.learning_rate == 3e-4);
  CHECK(o.training.lr_scheduler_type == ScheduleKind::constant_with_warmup);
  CHECK(o.training.warmup_steps == 2000);
  CHECK(o.training.save_steps == 76294);
  CHECK(o.training.save_total_limit == 1);
  CHECK(o.training.logging_steps == 1000);
  CHECK(o.training.seed == 42);
  CHECK(o.training.resume_every_minutes == 30);
  CHECK(o.notes.empty());
  CHECK(o.warnings.empty());
}

TEST_CASE("A word may be key=value, --key=value or --key value") {
  CHECK(from_words({"training.max_length=64"}).training.max_length == 64);
  CHECK(from_words({"--training.max_length=64"}).training.max_length == 64);
  CHECK(from_words({"--training.max_length", "64"}).training.max_length == 64);
}

TEST_CASE("A flag alone is true, also before another option") {
  CHECK(from_words({"--training.cut_documents"}).training.cut_documents);
  CHECK(from_words({"--training.cut_documents", "--training.seed=1"}).training.cut_documents);
  CHECK(from_words({"--training.cut_documents", "training.seed=1"}).training.cut_documents);
  CHECK_FALSE(from_words({"--training.cut_documents", "False"}).training.cut_documents);
}

TEST_CASE("Numbers are read as YAML and as Python print them") {
  CHECK(from_words({"training.learning_rate=1e-05"}).training.learning_rate == 1e-5);
  CHECK(from_words({"training.learning_rate=3e-4"}).training.learning_rate == 3e-4);
  CHECK(from_words({"training.learning_rate=.5"}).training.learning_rate == 0.5);
  CHECK(from_words({"training.weight_decay=1"}).training.weight_decay == 1.0);
  CHECK(from_words({"training.max_length=1e3"}).training.max_length == 1000);
  CHECK(from_words({"training.max_length=512.0"}).training.max_length == 512);
}

TEST_CASE("Booleans and null are read as YAML and as Python print them") {
  for (const char* yes : {"True", "true", "yes", "on"})
    CHECK(from_words({std::string("training.cut_documents=") + yes}).training.cut_documents);
  for (const char* no : {"False", "false", "no", "off"})
    CHECK_FALSE(from_words({std::string("training.cut_documents=") + no}).training.cut_documents);
  for (const char* nothing : {"None", "null", "~", ""})
    CHECK_FALSE(from_words({std::string("training.save_total_limit=") + nothing})
                    .training.save_total_limit.has_value());
}

TEST_CASE("Lists are read with and without spaces, sorted and without repetition") {
  const std::vector<Index> expected{0, 6, 12, 18};
  CHECK(from_words({"parscale.parscale_cross_attn_layers=[0, 6, 12, 18]"})
            .parscale.parscale_cross_attn_layers == expected);
  CHECK(
      from_words({"parscale.parscale_cross_attn_layers=[18,0,6,6,12]"}).parscale.parscale_cross_attn_layers ==
      expected);
}

TEST_CASE("Texts of the command line are taken as they stand, quoted ones without their quotes") {
  CHECK(from_words({"training.dataset=*.txt"}).training.dataset == "*.txt");
  CHECK(from_words({"training.dataset=a: b #c"}).training.dataset == "a: b #c");
  CHECK(from_words({"training.dataset='a b'"}).training.dataset == "a b");
  CHECK(from_words({"training.dataset=a=b"}).training.dataset == "a=b");
  CHECK(from_words({"training.run_name=010"}).training.run_name == "010");
}

TEST_CASE("Patterns of names may be a text or a list") {
  const std::vector<std::string> two{"prefix", "aggregate"};
  CHECK(from_words({"training.trainable=prefix, aggregate"}).training.trainable == two);
  CHECK(from_words({"training.trainable=[prefix, 'aggregate']"}).training.trainable == two);
  CHECK(from_yaml("training:\n  trainable: [prefix, aggregate]\n").training.trainable == two);
  CHECK(from_words({"training.trainable=*.mlp.*"}).training.trainable == std::vector<std::string>{"*.mlp.*"});
  CHECK(from_words({"training.trainable=None"}).training.trainable.empty());
}

TEST_CASE("resume_from_checkpoint is true, false or a folder") {
  CHECK(from_words({"training.resume_from_checkpoint=True"}).training.resume_from_checkpoint.latest);
  CHECK_FALSE(from_words({"training.resume_from_checkpoint=false"}).training.resume_from_checkpoint);
  CHECK(from_words({"training.resume_from_checkpoint=out/checkpoint-3"})
            .training.resume_from_checkpoint.checkpoint == "out/checkpoint-3");
  CHECK(from_words({"--training.resume_from_checkpoint"}).training.resume_from_checkpoint.latest);
}

TEST_CASE("A step count below one is a share of max_steps, wherever it stands") {
  const Options o = from_words({"training.save_steps=0.25", "training.max_steps=1000"});
  CHECK(o.training.save_steps == 250);
}

TEST_CASE("The command line outweighs the YAML file, which outweighs the defaults") {
  const Options o = from_yaml("training:\n  max_steps: 300\n  max_length: 32\n", {"training.max_steps=500"});
  CHECK(o.training.max_steps == 500);
  CHECK(o.training.max_length == 32);
  CHECK(o.training.seed == 42);
}

TEST_CASE("The last word about a key counts") {
  CHECK(from_words({"training.seed=1", "--training.seed", "2"}).training.seed == 2);
}

TEST_CASE("--config outweighs the file of the environment") {
  const TemporaryFolder folder;
  const auto first = folder.file("a.yaml", "training:\n  seed: 1\n  max_length: 16\n");
  const auto second = folder.file("b.yaml", "training:\n  seed: 2\n");
  ::setenv("CONFIG_FILE", first.c_str(), 1);
  const Options o = parse_program_options({"--config", second.string()});
  ::setenv("CONFIG_FILE", "", 1);
  CHECK(o.training.seed == 2);
  CHECK(o.training.max_length == 16);
  CHECK(parse_program_options({}).training.seed == 42);
  ::unsetenv("CONFIG_FILE");
}

TEST_CASE("Which keys were given is remembered, with their places") {
  const Options o = from_yaml("parscale:\n  parscale_n: 4\n", {"training.seed=7"});
  CHECK(o.is_given("parscale.parscale_n"));
  CHECK(o.is_given("training.seed"));
  CHECK_FALSE(o.is_given("parscale.parscale_attn_smooth"));
  CHECK(contains(o.given.at("parscale.parscale_n").where, "run.yaml, line 2, column 15"));
  CHECK(o.given.at("training.seed").where == "command line: training.seed=7");
}

TEST_CASE("The section model becomes a config.json with typed values") {
  const Options o = from_yaml(
      "model:\n  hidden_size: 256\n  rope_theta: 1e6\n  tie_word_embeddings: true\n  eos_token_id: [1, 2]\n"
      "training:\n  tokenizer: t.json\n",
      {"model.hidden_size=512", "model.model_type=qwen2", "model.sliding_window=None"});
  REQUIRE(o.model.has_value());
  const io::Json& model = *o.model;
  CHECK(model["hidden_size"] == 512);
  CHECK(model["rope_theta"].get<double>() == 1e6);
  CHECK(model["tie_word_embeddings"] == true);
  CHECK(model["eos_token_id"] == io::Json({1, 2}));
  CHECK(model["model_type"] == "qwen2");
  CHECK(model["sliding_window"].is_null());
}

TEST_CASE("model=null drops the section model of a file") {
  const Options o =
      from_yaml("model:\n  hidden_size: 256\n", {"model=null", "training.base_model=somewhere"});
  CHECK_FALSE(o.model.has_value());
  CHECK(o.training.base_model == "somewhere");
}

TEST_CASE("Anchors and empty sections are fine, and an empty file says nothing") {
  CHECK(from_yaml("training:\n  max_steps: &n 3000\n  save_steps: *n\n").training.save_steps == 3000);
  CHECK(from_yaml("training:\nparscale:\n").training.max_steps == 76294);
  CHECK(from_yaml("# nothing\n").given.empty());
}

TEST_CASE("The example configurations are read without a note") {
  const std::filesystem::path configs = std::filesystem::path(PARSCALE_SOURCE_DIR) / "configs";
  const Options basic = parse_options({configs / "basic.yaml"}, {"--parscale.parscale_n=4"});
  CHECK(basic.parscale.parscale_n == 4);
  CHECK(basic.notes.empty());
  CHECK(basic.warnings.empty());
  const Options cross = parse_options({configs / "cross_attn.yaml"}, {});
  CHECK(cross.parscale.enable_cross_attn);
  CHECK(cross.parscale.parscale_cross_attn_layers == std::vector<Index>{0, 6, 12, 18});
  CHECK(cross.warnings.empty());
}

TEST_CASE("basic.yaml shows the built-in defaults") {
  const std::filesystem::path file = std::filesystem::path(PARSCALE_SOURCE_DIR) / "configs/basic.yaml";
  Options basic = parse_options({file}, {});
  basic.given.clear();
  CHECK(to_yaml(basic) == to_yaml(from_words({})));
}

TEST_CASE("What is printed reads back to the same options") {
  const Options o = from_words(
      {"parscale.parscale_n=4", "parscale.parscale_cross_attn_layers=[0, 3]", "training.run_name=010",
       "training.dataset=a \"b\" #c.txt", "training.save_total_limit=None", "training.eval_fraction=0.01",
       "training.warmup_ratio=0.1", "training.bf16=True", "training.trainable=prefix,aggregate",
       "training.resume_from_checkpoint=out/x", "model.rope_theta=1e6", "model.hidden_size=64",
       "training.tokenizer=t.json", "training.logging_steps=0.001"});
  Options again = from_yaml(to_yaml(o));
  Options without_places = o;
  without_places.given.clear();
  again.given.clear();
  CHECK(to_yaml(again) == to_yaml(without_places));
  CHECK(again.model == o.model);
  CHECK(again.training.warmup_steps == 7630);
  CHECK(again.training.eval_strategy == Strategy::steps);
}

TEST_CASE("Only given keys are printed on request, with their places") {
  const std::string text = to_yaml(from_words({"training.seed=7"}), true);
  CHECK(contains(text, "  seed: 7"));
  CHECK(contains(text, "# command line: training.seed=7"));
  CHECK_FALSE(contains(text, "max_steps"));
}

TEST_CASE("The help explains every supported key") {
  const std::string help = options_help();
  for (const char* key :
       {"parscale_n_tokens", "global_batch_size", "resume_every_minutes", "cut_documents", "deepspeed"})
    CHECK(contains(help, key));
  CHECK(contains(help, "default 76294"));
}
