#include <parscale/io/model_config.hpp>
#include <vector>

#include "support.hpp"

using namespace parscale;
using namespace parscale::test;
using io::Json;
using io::ModelConfig;
using io::parse_model_config;

namespace {

/// The sizes of a small Qwen2 and nothing else.
Json minimal() {
  return {{"model_type", "qwen2"},  {"hidden_size", 64},        {"intermediate_size", 96},
          {"num_hidden_layers", 4}, {"num_attention_heads", 4}, {"vocab_size", 100}};
}

Json minimal_with(const Json& changes) {
  Json json = minimal();
  json.update(changes);
  return json;
}

/// Four replicas that cross.
Json crossing_with(const Json& changes) {
  Json json =
      minimal_with({{"model_type", "qwen2_parscale"}, {"parscale_n", 4}, {"enable_cross_attn", true}});
  json.update(changes);
  return json;
}

ModelConfig parse(const Json& json) { return parse_model_config(json, "config.json"); }

std::string error_with(const Json& changes) {
  auto message = error_of<InputError>([&] { parse(minimal_with(changes)); });
  CHECK_THAT(message, ContainsSubstring("config.json"));
  return message;
}

}  // namespace

TEST_CASE("Absent keys have the defaults of transformers") {
  const ModelConfig config = parse(minimal());
  CHECK(config.architecture == Architecture{.head_dim = 16, .replicas = 1});
  CHECK(config.shape.kv_heads == 4);
  CHECK(config.shape.rope_theta == 10000.0);
  CHECK(config.shape.rms_norm_eps == 1e-6);
  CHECK(config.shape.initializer_range == 0.02);
  CHECK(config.shape.prefix_tokens == 48);
  CHECK(config.shape.smoothing == 0.01);
  CHECK_FALSE(config.shape.tied);
  CHECK(config.max_position_embeddings == 32768);
  CHECK_FALSE(config.bos_token_id.has_value());
  CHECK(config.eos_token_ids.empty());
  CHECK(config.dtype == "float32");
  CHECK(config.warnings.empty());
}

TEST_CASE("null in config.json means absent") {
  const ModelConfig config = parse(minimal_with({{"num_key_value_heads", nullptr},
                                                 {"head_dim", nullptr},
                                                 {"rope_scaling", nullptr},
                                                 {"bos_token_id", nullptr},
                                                 {"quantization_config", nullptr},
                                                 {"sliding_window", nullptr},
                                                 {"torch_dtype", nullptr}}));
  CHECK(config.shape.kv_heads == 4);
  CHECK(config.architecture.head_dim == 16);
}

TEST_CASE("Every key of a config.json is read") {
  const ModelConfig config = parse(minimal_with({{"num_key_value_heads", 2},
                                                 {"head_dim", 32},
                                                 {"rope_theta", 1000000},
                                                 {"rms_norm_eps", 1e-5},
                                                 {"initializer_range", 0.1},
                                                 {"tie_word_embeddings", true},
                                                 {"max_position_embeddings", 512},
                                                 {"bos_token_id", 3},
                                                 {"eos_token_id", 5},
                                                 {"torch_dtype", "bfloat16"},
                                                 {"parscale_n", 8},
                                                 {"parscale_n_tokens", 7},
                                                 {"parscale_attn_smooth", 0.1},
                                                 {"parscale_replica_embedding", true}}));
  CHECK(config.architecture == Architecture{.head_dim = 32, .replicas = 8});
  CHECK(config.shape.layers == 4);
  CHECK(config.shape.hidden == 64);
  CHECK(config.shape.intermediate == 96);
  CHECK(config.shape.heads == 4);
  CHECK(config.shape.kv_heads == 2);
  CHECK(config.shape.vocabulary == 100);
  CHECK(config.shape.rope_theta == 1e6);
  CHECK(config.shape.rms_norm_eps == 1e-5);
  CHECK(config.shape.initializer_range == 0.1);
  CHECK(config.shape.tied);
  CHECK(config.max_position_embeddings == 512);
  CHECK(config.bos_token_id == 3);
  CHECK(config.eos_token_ids == std::vector<std::int32_t>{5});
  CHECK(config.dtype == "bfloat16");
  CHECK(config.shape.prefix_tokens == 7);
  CHECK(config.shape.smoothing == 0.1);
  CHECK(config.shape.replica_embedding);
}

TEST_CASE("A model may have several end tokens") {
  CHECK(parse(minimal_with({{"eos_token_id", {7, 9}}})).eos_token_ids == std::vector<std::int32_t>{7, 9});
}

TEST_CASE("A missing model_type means Qwen2") {
  Json json = minimal();
  json.erase("model_type");
  CHECK_NOTHROW(parse(json));
}

TEST_CASE("The rotary base may stand in rope_parameters or rope_scaling") {
  const auto theta = [](const Json& changes) { return parse(minimal_with(changes)).shape.rope_theta; };
  CHECK(theta({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e5}}}}) == 5e5);
  CHECK(theta({{"rope_parameters", {{"rope_theta", 5e5}}}, {"rope_theta", 5e5}}) == 5e5);
  CHECK(theta({{"rope_parameters", {{"rope_type", "default"}}}, {"rope_theta", 2e5}}) == 2e5);
  CHECK(theta({{"rope_scaling", {{"type", "default"}}}, {"rope_theta", 2e5}}) == 2e5);
  CHECK(theta({{"rope_parameters", {{"rope_type", "default"}}}}) == 10000.0);
}

TEST_CASE("dtype goes before torch_dtype, and the prefix torch. is understood") {
  CHECK(parse(minimal_with({{"dtype", "float16"}, {"torch_dtype", "float32"}})).dtype == "float16");
  CHECK(parse(minimal_with({{"torch_dtype", "torch.bfloat16"}})).dtype == "bfloat16");
}

TEST_CASE("A sliding window that no layer uses is fine") {
  CHECK_NOTHROW(parse(
      minimal_with({{"use_sliding_window", false}, {"sliding_window", 4096}, {"max_window_layers", 2}})));
  CHECK_NOTHROW(parse(
      minimal_with({{"use_sliding_window", true}, {"sliding_window", 4096}, {"max_window_layers", 4}})));
  CHECK_NOTHROW(parse(
      minimal_with({{"use_sliding_window", true}, {"sliding_window", nullptr}, {"max_window_layers", 0}})));
  CHECK_NOTHROW(parse(minimal_with({{"layer_types", {"full_attention", "full_attention"}}})));
}

TEST_CASE("A sliding window that a layer would use is refused") {
  CHECK_THAT(error_with({{"use_sliding_window", true}, {"sliding_window", 4096}, {"max_window_layers", 3}}),
             ContainsSubstring("use_sliding_window") && ContainsSubstring("layers 3 to 3"));
  CHECK_THAT(error_with({{"layer_types", {"full_attention", "sliding_attention"}}}),
             ContainsSubstring("layer_types") && ContainsSubstring("sliding_attention"));
}

TEST_CASE("Scaled rotary positions are refused by name") {
  CHECK_THAT(error_with({{"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}}}}),
             ContainsSubstring("rope_scaling") && ContainsSubstring("yarn"));
  CHECK_THAT(error_with({{"rope_parameters", {{"rope_type", "linear"}, {"rope_theta", 1e4}}}}),
             ContainsSubstring("rope_parameters") && ContainsSubstring("linear"));
}

TEST_CASE("Rotary positions that differ between layers are refused") {
  CHECK_THAT(error_with({{"rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}}}),
             ContainsSubstring("differs between layers"));
}

TEST_CASE("Partly rotated heads are refused") {
  CHECK_THAT(error_with({{"partial_rotary_factor", 0.5}}), ContainsSubstring("partial_rotary_factor"));
  CHECK_THAT(error_with({{"rope_parameters", {{"partial_rotary_factor", 0.5}}}}),
             ContainsSubstring("partial_rotary_factor"));
}

TEST_CASE("Two different rotary bases are an error") {
  CHECK_THAT(error_with({{"rope_parameters", {{"rope_theta", 1e5}}}, {"rope_theta", 1e6}}),
             ContainsSubstring("rope_theta stands in two places"));
}

TEST_CASE("Another activation than silu is refused") {
  CHECK_THAT(error_with({{"hidden_act", "gelu"}}),
             ContainsSubstring("hidden_act") && ContainsSubstring("gelu"));
}

TEST_CASE("Quantised weights are refused") {
  CHECK_THAT(error_with({{"quantization_config", {{"bits", 4}}}}), ContainsSubstring("quantization_config"));
}

TEST_CASE("Other model types are refused by name") {
  CHECK_THAT(error_with({{"model_type", "llama"}}),
             ContainsSubstring("model_type") && ContainsSubstring("llama"));
}

TEST_CASE("An unknown dtype of the weights is refused") {
  CHECK_THAT(error_with({{"torch_dtype", "int8"}}),
             ContainsSubstring("torch_dtype") && ContainsSubstring("int8"));
}

TEST_CASE("An unknown kind of cross-attention is refused") {
  CHECK_THAT(error_of<InputError>([] {
               parse(crossing_with({{"parscale_cross_attn_kind", "other"}}));
             }),
             ContainsSubstring("parscale_cross_attn_kind") && ContainsSubstring("other"));
}

TEST_CASE("A missing size is an error that names the key") {
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"}) {
    Json json = minimal();
    json.erase(key);
    CHECK_THAT(error_of<InputError>([&] { parse(json); }),
               ContainsSubstring(std::string("The key ") + key + " is missing"));
  }
}

TEST_CASE("A size of the wrong type or range is an error that names the key") {
  CHECK_THAT(error_with({{"hidden_size", "64"}}), ContainsSubstring("hidden_size must be a whole number"));
  CHECK_THAT(error_with({{"num_hidden_layers", 1.5}}),
             ContainsSubstring("num_hidden_layers must be a whole number"));
  CHECK_THAT(error_with({{"num_hidden_layers", 0}}),
             ContainsSubstring("num_hidden_layers must be a whole number from 1"));
  CHECK_THAT(error_with({{"vocab_size", -1}}), ContainsSubstring("vocab_size must be a whole number"));
  CHECK_THAT(error_with({{"intermediate_size", 1e300}}),
             ContainsSubstring("intermediate_size must be a whole number"));
  CHECK_THAT(error_with({{"num_attention_heads", true}}),
             ContainsSubstring("num_attention_heads must be a whole number"));
  CHECK_THAT(error_with({{"parscale_n", 65}}),
             ContainsSubstring("parscale_n must be a whole number from 1 to 64"));
  CHECK_THAT(error_with({{"parscale_n", 0}}),
             ContainsSubstring("parscale_n must be a whole number from 1 to 64"));
  CHECK_THAT(error_with({{"parscale_n_tokens", -1}}),
             ContainsSubstring("parscale_n_tokens must be a whole number"));
}

TEST_CASE("A number, a flag or a text of the wrong type is an error that names the key") {
  CHECK_THAT(error_with({{"rope_theta", "1e6"}}), ContainsSubstring("rope_theta must be a number"));
  CHECK_THAT(error_with({{"tie_word_embeddings", 1}}),
             ContainsSubstring("tie_word_embeddings must be true or false"));
  CHECK_THAT(error_with({{"enable_cross_attn", "yes"}}),
             ContainsSubstring("enable_cross_attn must be true or false"));
  CHECK_THAT(error_with({{"hidden_act", 3}}), ContainsSubstring("hidden_act must be text"));
  CHECK_THAT(error_with({{"eos_token_id", "5"}}), ContainsSubstring("eos_token_id must be a whole number"));
  CHECK_THAT(error_with({{"eos_token_id", {1, "5"}}}),
             ContainsSubstring("eos_token_id must be a whole number"));
  CHECK_THAT(error_with({{"parscale_cross_attn_layers", "all"}}),
             ContainsSubstring("parscale_cross_attn_layers must be a list"));
  CHECK_THAT(error_with({{"parscale_cross_attn_layers", {-1}}}),
             ContainsSubstring("parscale_cross_attn_layers must be a whole number from 0"));
  CHECK_THAT(error_with({{"rope_scaling", 3}}),
             ContainsSubstring("object is needed") && ContainsSubstring("rope_scaling"));
}

TEST_CASE("A config.json that is no object is an error") {
  CHECK_THAT(error_of<InputError>([] { parse(Json::array()); }), ContainsSubstring("JSON object is needed"));
}

TEST_CASE("Sizes that contradict each other are input errors with the rule") {
  CHECK_THAT(error_with({{"hidden_size", 66}}), ContainsSubstring("not a multiple of num_attention_heads"));
  CHECK_THAT(error_with({{"num_key_value_heads", 3}}), ContainsSubstring("multiple of num_key_value_heads"));
  CHECK_THAT(error_with({{"parscale_attn_smooth", 1.5}}), ContainsSubstring("parscale_attn_smooth"));
  CHECK_THAT(error_with({{"rope_theta", 1e300}}), ContainsSubstring("rope_theta"));
  CHECK_THAT(error_with({{"rms_norm_eps", -1}}), ContainsSubstring("rms_norm_eps"));
}

TEST_CASE("A head size that no model can be compiled for is refused") {
  CHECK_THAT(error_with({{"head_dim", 12}}), ContainsSubstring("head_dim") && ContainsSubstring("12"));
  CHECK_THAT(error_with({{"head_dim", 512}}), ContainsSubstring("head_dim"));
}

TEST_CASE("Crossing without a list is crossing in every layer") {
  const ModelConfig config = parse(crossing_with({{"parscale_cross_attn_layers", nullptr}}));
  CHECK(config.architecture.cross_attention == CrossAttention::expanded);
  CHECK(config.architecture.cross_layers == LayerSet::at_run_time());
  CHECK(config.shape.cross_layers == std::vector<int>{0, 1, 2, 3});
}

TEST_CASE("The layers that cross are listed once and in order") {
  const ModelConfig config = parse(crossing_with({{"parscale_cross_attn_layers", {3, 1, 3}}}));
  CHECK(config.architecture.cross_layers == LayerSet::at_run_time());
  CHECK(config.shape.cross_layers == std::vector<int>{1, 3});
}

TEST_CASE("Layers outside the model are dropped with a warning that names them") {
  const ModelConfig config = parse(crossing_with({{"parscale_cross_attn_layers", {0, 4, 24}}}));
  CHECK(config.shape.cross_layers == std::vector<int>{0});
  REQUIRE(config.warnings.size() == 1);
  CHECK_THAT(config.warnings[0], ContainsSubstring("4, 24") && ContainsSubstring("layers 0 to 3"));
}

TEST_CASE("An empty list of layers means that none crosses") {
  const ModelConfig config = parse(crossing_with({{"parscale_cross_attn_layers", Json::array()}}));
  CHECK(config.architecture == Architecture{.head_dim = 16, .replicas = 4});
  CHECK(config.shape.cross_layers.empty());
}

TEST_CASE("One replica with crossing is plain Qwen2 with a warning") {
  const ModelConfig config = parse(crossing_with({{"parscale_n", 1}, {"enable_replica_rope", true}}));
  CHECK(config.architecture == Architecture{.head_dim = 16, .replicas = 1});
  CHECK(config.shape.cross_layers.empty());
  REQUIRE(config.warnings.size() == 1);
  CHECK_THAT(config.warnings[0], ContainsSubstring("plain Qwen2"));
}

TEST_CASE("The sublayer kind keeps its replica rotary, other kinds have none") {
  CHECK(parse(crossing_with({{"parscale_cross_attn_kind", "sublayer"}, {"enable_replica_rope", true}}))
            .shape.replica_rope);
  CHECK_FALSE(parse(crossing_with({{"enable_replica_rope", true}})).shape.replica_rope);
}

TEST_CASE("Replicas that nothing tells apart are warned about") {
  const auto warnings = [](Json changes) {
    changes["parscale_n_tokens"] = 0;
    return parse(crossing_with(changes)).warnings;
  };
  CHECK_THAT(warnings({{"enable_cross_attn", false}}).at(0), ContainsSubstring("identical for ever"));
  CHECK_THAT(warnings({{"parscale_cross_attn_kind", "sublayer"}}).at(0),
             ContainsSubstring("identical for ever") && ContainsSubstring("parscale_replica_embedding"));
  CHECK_THAT(warnings(Json::object()).at(0), ContainsSubstring("cross_attn_proj"));
  CHECK(warnings({{"parscale_replica_embedding", true}}).empty());
  CHECK(warnings({{"parscale_n", 1}, {"enable_cross_attn", false}}).empty());
}

TEST_CASE("Bringing a configuration into its form twice changes nothing") {
  const ModelConfig once =
      parse(crossing_with({{"parscale_cross_attn_layers", {0, 9}}, {"parscale_n_tokens", 0}}));
  const ModelConfig twice = io::canonical(once);
  CHECK(twice.architecture == once.architecture);
  CHECK(twice.shape.cross_layers == once.shape.cross_layers);
  CHECK(twice.warnings == once.warnings);
}

TEST_CASE("Layer sets of compiled models become lists") {
  ModelConfig config = parse(minimal());
  config.architecture = {
      .replicas = 2, .cross_attention = CrossAttention::sublayer, .cross_layers = {1, 2, 200}};
  config = io::canonical(config);
  CHECK(config.shape.cross_layers == std::vector<int>{1, 2});
  config.architecture.cross_layers = LayerSet::every();
  CHECK(io::canonical(config).shape.cross_layers == std::vector<int>{0, 1, 2, 3});
}

TEST_CASE("Attention dropout is ignored with a warning") {
  CHECK_THAT(parse(minimal_with({{"attention_dropout", 0.1}})).warnings.at(0),
             ContainsSubstring("attention_dropout"));
}

TEST_CASE("A plain model is written as transformers' Qwen2") {
  const Json json = io::to_json(parse(minimal_with({{"parscale_n", 1}, {"eos_token_id", {7, 9}}})));
  CHECK(json["model_type"] == "qwen2");
  CHECK(json["architectures"] == Json::array({"Qwen2ForCausalLM"}));
  CHECK(json["eos_token_id"] == Json::array({7, 9}));
  CHECK_FALSE(json.contains("bos_token_id"));
  for (const auto& [key, value] : json.members()) CHECK(key.find("parscale") == key.npos);
}

TEST_CASE("Every golden config.json is written with the same keys and values") {
  for (const auto& folder : std::filesystem::directory_iterator(PARSCALE_SOURCE_DIR "/tests/data/goldens")) {
    if (!std::filesystem::exists(folder.path() / "config.json")) continue;
    INFO(folder.path().string());
    const Json before = io::read_json(folder.path() / "config.json");
    const Json after = io::to_json(io::load_model_config(folder.path()));
    if (before["parscale_n"] == 1) {
      CHECK(after["model_type"] == "qwen2");
      continue;
    }
    for (const auto& [key, value] : before.members()) {
      INFO(key);
      REQUIRE(after.contains(key));
      CHECK(after[key] == value);
    }
  }
}

TEST_CASE("A written config.json reads as the same configuration") {
  for (const Json& changes :
       {Json{{"parscale_cross_attn_layers", {0, 2}}, {"bos_token_id", 1}, {"eos_token_id", {1, 2}}},
        Json{{"parscale_cross_attn_kind", "sublayer"}, {"enable_replica_rope", true}},
        Json{{"enable_cross_attn", false}, {"parscale_replica_embedding", true}, {"dtype", "bfloat16"}},
        Json{{"parscale_n", 1}, {"tie_word_embeddings", true}, {"rope_theta", 123456.789}}}) {
    const ModelConfig first = parse(crossing_with(changes));
    const ModelConfig second = parse(io::to_json(first));
    CHECK(second.architecture == first.architecture);
    CHECK(second.shape.cross_layers == first.shape.cross_layers);
    CHECK(second.shape.replica_rope == first.shape.replica_rope);
    CHECK(second.shape.replica_embedding == first.shape.replica_embedding);
    CHECK(second.shape.rope_theta == first.shape.rope_theta);
    CHECK(second.shape.tied == first.shape.tied);
    CHECK(second.bos_token_id == first.bos_token_id);
    CHECK(second.eos_token_ids == first.eos_token_ids);
    CHECK(second.dtype == first.dtype);
    CHECK(io::to_json(second) == io::to_json(first));
  }
}

TEST_CASE("generation_config.json has the last word on end tokens") {
  TemporaryDirectory folder;
  io::write_json(folder / "config.json", minimal_with({{"eos_token_id", 1}}));
  CHECK(io::load_model_config(folder.path()).eos_token_ids == std::vector<std::int32_t>{1});
  folder.file("generation_config.json", R"({"eos_token_id": [4, 5]})");
  CHECK(io::load_model_config(folder.path()).eos_token_ids == std::vector<std::int32_t>{4, 5});
  folder.file("generation_config.json", "{}");
  CHECK(io::load_model_config(folder.path()).eos_token_ids == std::vector<std::int32_t>{1});
}

TEST_CASE("Stored types are spelled as transformers spells them") {
  CHECK(io::transformers_name_of(io::Dtype::bf16) == "bfloat16");
  CHECK(io::transformers_name_of(io::Dtype::f32) == "float32");
  CHECK_THAT(error_of<ConfigurationError>([] { io::transformers_name_of(io::Dtype::i8); }),
             ContainsSubstring("I8"));
}
