// generate, evaluate, convert: results against goldens, and what they say when asked for the impossible.
#include <catch2/generators/catch_generators.hpp>
#include <parscale/io/safetensors.hpp>

#include "program.hpp"

using namespace parscale::test;
using parscale::io::Json;

namespace {

const fs::path golden = source_dir / "tests/data/goldens/p4_hd64_long";
const fs::path crossing = source_dir / "tests/data/goldens/p4_hd64_sublayer";

template <class T>
std::vector<T> tensor(const fs::path& path, const std::string& name) {
  const parscale::io::SafetensorsFile file(path);
  const auto* info = file.find(name);
  REQUIRE(info != nullptr);
  std::vector<T> values(info->count());
  file.read(*info, std::span<T>(values));
  return values;
}

std::string joined_ids(const std::vector<std::int64_t>& ids, std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += (i > 0 ? "," : "") + std::to_string(ids[i]);
  return text;
}

}  // namespace

TEST_CASE("Greedy continuation of ids equals the reference") {
  const Scratch scratch;
  const fs::path model = GENERATE(golden, crossing);
  const auto ids = tensor<std::int64_t>(model / "expected.safetensors", "greedy");
  const Outcome outcome = run(scratch, "generate",
                              {model.string(), "--prompt-ids", joined_ids(ids, 8), "--max-new-tokens", "16",
                               "--ignore-eos", "--print-ids"});
  REQUIRE(outcome.code == 0);
  CHECK(outcome.last_line() == joined_ids(ids, ids.size()));
}

TEST_CASE("Loss and logits of ids equal the reference") {
  const Scratch scratch;
  const fs::path model = GENERATE(golden, crossing);
  const Outcome outcome =
      run(scratch, "evaluate",
          {model.string(), "--input-ids", (model / "expected.safetensors").string(), "--dump-logits",
           (scratch / "logits.safetensors").string(), "--dtype", "float64", "--json"});
  REQUIRE(outcome.code == 0);
  const Json json = parscale::io::parse_json(outcome.last_line(), "output");
  const double loss = tensor<double>(model / "expected.safetensors", "loss").front();
  CHECK(std::abs(json["loss"].get<double>() - loss) < 1e-6);
  CHECK(std::abs(json["perplexity"].get<double>() - std::exp(loss)) < 1e-4);
  const auto ours = tensor<float>(scratch / "logits.safetensors", "logits"),
             theirs = tensor<float>(model / "expected.safetensors", "logits");
  REQUIRE(ours.size() == theirs.size());
  double most = 0, difference = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(theirs[i])));
    difference =
        std::max(difference, std::abs(static_cast<double>(ours[i]) - static_cast<double>(theirs[i])));
  }
  CHECK(difference <= 2e-7 * most);
}

TEST_CASE("A trained model generates text, and sampling is reproducible") {
  const Scratch scratch;
  REQUIRE(run(scratch, "train", tiny_run(scratch, "model")).code == 0);
  const std::vector<std::string> words{(scratch / "model").string(),
                                       "--prompt",
                                       "Anne could not",
                                       "--max-new-tokens",
                                       "20",
                                       "--temperature",
                                       "0.9",
                                       "--top-p",
                                       "0.95",
                                       "--seed",
                                       "3"};
  const Outcome one = run(scratch, "generate", words), two = run(scratch, "generate", words);
  REQUIRE(one.code == 0);
  CHECK(one.out == two.out);
  CHECK(one.out.starts_with("Anne could not"));
  const Outcome evaluated = run(scratch, "evaluate",
                                {(scratch / "model").string(), "--data", (scratch / "page.txt").string(),
                                 "--max-length", "32", "--json"});
  REQUIRE(evaluated.code == 0);
  CHECK(parscale::io::parse_json(evaluated.last_line(), "output")["tokens"].get<int>() > 1000);
}

TEST_CASE("Qwen2 becomes ParScale with what was added listed, keeps its weights, and refuses the way back") {
  const Scratch scratch;
  REQUIRE(run(scratch, "train", tiny_run(scratch, "plain")).code == 0);
  const std::string from = (scratch / "plain").string(), to = (scratch / "parallel").string();
  const Outcome converted =
      run(scratch, "convert", {from, to, "parscale.parscale_n=4", "parscale.parscale_cross_attn_layers=[1]"});
  REQUIRE(converted.code == 0);
  CHECK(has(converted.err, "prefix_k"));
  CHECK(has(converted.err, "o_proj, once for each replica"));
  CHECK(tensor<float>(scratch / "plain" / "model.safetensors", "model.embed_tokens.weight") ==
        tensor<float>(scratch / "parallel" / "model.safetensors", "model.embed_tokens.weight"));
  CHECK(fs::exists(scratch / "parallel" / "tokenizer.json"));
  const Json config =
      parscale::io::parse_json(read_text(scratch / "parallel" / "config.json"), "config.json");
  CHECK(config["parscale_n"] == 4);
  CHECK(config["parscale_cross_attn_layers"] == Json::array({1}));

  const Outcome exists = run(scratch, "convert", {from, to});
  CHECK(exists.code == 2);
  const Outcome back =
      run(scratch, "convert",
          {to, (scratch / "back").string(), "parscale.parscale_n=1", "parscale.enable_cross_attn=false"});
  CHECK(back.code == 2);
  CHECK_FALSE(fs::exists(scratch / "back"));
}

TEST_CASE("A plain model converted to bfloat16 and small files is still the same model") {
  const Scratch scratch;
  REQUIRE(run(scratch, "train", tiny_run(scratch, "plain")).code == 0);
  REQUIRE(run(scratch, "convert",
              {(scratch / "plain").string(), (scratch / "small").string(), "--dtype", "bfloat16",
               "--max-shard-size", "100KB"})
              .code == 0);
  CHECK(fs::exists(scratch / "small" / "model.safetensors.index.json"));
  const Json config = parscale::io::parse_json(read_text(scratch / "small" / "config.json"), "config.json");
  CHECK(config["model_type"] == "qwen2");
  CHECK(config["torch_dtype"] == "bfloat16");
  CHECK(run(scratch, "generate", {(scratch / "small").string(), "--prompt", "Anne", "--max-new-tokens", "3"})
            .code == 0);
}

TEST_CASE("Every program says its version") {
  const Scratch scratch;
  for (const char* program : {"train", "generate", "evaluate", "convert", "tokenize", "compare"})
    CHECK(run(scratch, program, {"--version"}).out ==
          std::string("parscale-") + program + " " PARSCALE_VERSION "\n");
}

TEST_CASE("Impossible requests end with a clear message and the right exit code") {
  const Scratch scratch;
  struct Case {
    std::string program;
    std::vector<std::string> words;
    int code;
    std::string says;
  };
  const std::string model = golden.string();
  const std::vector<Case> cases{
      {"generate", {"no-such/model", "--prompt", "x"}, 3, "huggingface-cli download no-such/model"},
      {"generate", {model}, 2, "--prompt"},
      {"generate", {model, "--prompt-ids", "5,96"}, 3, "vocabulary"},
      {"generate", {model, "--prompt-ids", "5", "--top-p", "0"}, 2, "top_p"},
      {"generate", {model, "--prompt-ids", "5", "--temprature", "1"}, 2, "temprature"},
      {"generate",
       {(source_dir / "tests/data/goldens/p4").string(), "--prompt-ids", "5"},
       2,
       "PARSCALE_HEAD_DIMS"},
      {"evaluate", {model, "--input-ids", (golden / "config.json").string()}, 3, "safetensors"},
      {"evaluate", {model, "--input-ids", (golden / "model.safetensors").string()}, 3, "input_ids"},
      {"evaluate", {model}, 2, "--data"},
      {"convert", {model, (scratch / "x").string(), "training.max_steps=3"}, 2, "parscale"},
      {"convert", {model, (scratch / "x").string(), "parscale.parscale_n=3"}, 2, "replicas"},
      {"train", {"training.max_stepps=3"}, 2, "max_steps"},
      {"train",
       {"training.base_model=Qwen/none", "training.dataset=" + (golden / "config.json").string()},
       3,
       "huggingface-cli"},
  };
  for (const Case& c : cases) {
    const Outcome outcome = run(scratch, c.program, c.words);
    CHECK(outcome.code == c.code);
    CHECK(has(outcome.err, c.says));
  }
  CHECK_FALSE(fs::exists(scratch / "x"));
}

TEST_CASE("The seed's commands run: a layer outside the model is dropped with a warning") {
  const Scratch scratch;
  REQUIRE(run(scratch, "train",
              tiny_run(scratch, "base", "28") + std::vector<std::string>{"training.max_steps=1"})
              .code == 0);
  const Outcome outcome = run(scratch, "train",
                              {"parscale.parscale_n=4", "training.base_model=" + (scratch / "base").string(),
                               "parscale.parscale_cross_attn_layers=[0,4,8,12,16,20,24,28]",
                               "training.dataset=" + (scratch / "page.txt").string(),
                               "training.output_dir=" + (scratch / "out").string(), "training.max_steps=1",
                               "training.max_length=16", "training.per_device_train_batch_size=1",
                               "training.gradient_accumulation_steps=1", "parscale.parscale_n_tokens=2"});
  REQUIRE(outcome.code == 0);
  const auto warned = outcome.err.find("outside the model");
  CHECK(has(outcome.err, "28"));
  REQUIRE(warned != std::string::npos);
  CHECK(outcome.err.find("outside the model", warned + 1) == std::string::npos);
  const Json config = parscale::io::parse_json(read_text(scratch / "out" / "config.json"), "config.json");
  CHECK(config["parscale_cross_attn_layers"] == Json::array({0, 4, 8, 12, 16, 20, 24}));
}

TEST_CASE("The example configurations run with every form of the command line") {
  const Scratch scratch;
  REQUIRE(run(scratch, "train", tiny_run(scratch, "base") + std::vector<std::string>{"training.max_steps=1"})
              .code == 0);
  const std::vector<std::string> small{"training.base_model=" + (scratch / "base").string(),
                                       "training.dataset=" + (scratch / "page.txt").string(),
                                       "--training.max_steps",
                                       "1",
                                       "training.max_length=16",
                                       "training.output_dir=" + (scratch / "out").string(),
                                       "--training.overwrite_output_dir=True",
                                       "parscale.parscale_n_tokens=2"};
  for (const char* config : {"basic.yaml", "cross_attn.yaml"}) {
    const Outcome outcome = run(scratch, "train", std::vector<std::string>{"--parscale.parscale_n=4"} + small,
                                {"CONFIG_FILE=" + (source_dir / "configs" / config).string()});
    CHECK(outcome.code == 0);
    CHECK(has(outcome.out, "P = 4"));
  }
}
