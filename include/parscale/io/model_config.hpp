/// A model's config.json: Hugging Face's Qwen2 in its dialects, and ParScale's additions to it.
///
///     config.json --read_json--> Json --parse_model_config--> ModelConfig --to_json--> config.json
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../config.hpp"
#include "dtype.hpp"
#include "json_fields.hpp"
#include "qwen2_dialects.hpp"

namespace parscale::io {

/// What a config.json says. `architecture` is canonical: when replicas cross, its layers are left to run time
/// and shape.cross_layers lists them; a model where none cross has the kind `none`.
struct ModelConfig {
  Architecture architecture = {};
  Shape shape = {};
  Index max_position_embeddings = 32768;
  std::optional<std::int32_t> bos_token_id = {};
  std::vector<std::int32_t> eos_token_ids = {};
  std::string dtype = "float32";           ///< of the stored weights, as transformers spells it
  std::vector<std::string> warnings = {};  ///< what was ignored, and what cannot be meant
};

/// How transformers spells the types that models are stored in. Throws ConfigurationError for any other.
inline std::string transformers_name_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64:
      return "float64";
    case Dtype::f32:
      return "float32";
    case Dtype::f16:
      return "float16";
    case Dtype::bf16:
      return "bfloat16";
    default:
      throw ConfigurationError({.what = concat({"Models are not stored as ", name_of(dtype)})});
  }
}

namespace detail {

/// Warns once, however often a configuration is brought into its form.
inline void warn(ModelConfig& config, const std::string& warning) {
  if (std::find(config.warnings.begin(), config.warnings.end(), warning) == config.warnings.end())
    config.warnings.push_back(warning);
}

/// Replaces each form of "these layers cross" by an explicit list, ascending and without repetition; warns of
/// layers that the model does not have.
inline void list_cross_layers(ModelConfig& config) {
  const LayerSet& set = config.architecture.cross_layers;
  const int layers = static_cast<int>(config.shape.layers);
  std::vector<bool> crosses(static_cast<std::size_t>(layers));
  std::string outside;
  if (set.rule == LayerSet::Rule::at_run_time) {
    for (const int layer : config.shape.cross_layers) {
      if (layer >= 0 && layer < layers)
        crosses[static_cast<std::size_t>(layer)] = true;
      else
        outside += concat({outside.empty() ? "" : ", ", layer});
    }
  }
  config.shape.cross_layers.clear();
  for (int i = 0; i < layers; ++i)
    if (crosses[static_cast<std::size_t>(i)] || set.contains(i)) config.shape.cross_layers.push_back(i);
  if (!outside.empty())
    warn(config, concat({"parscale_cross_attn_layers names layers outside the model (layers 0 to ",
                         layers - 1, "): ", outside, "; left out"}));
}

/// Without prefix nothing tells the replicas apart, unless something else does. The replicas' own rotary does
/// not: it turns queries and keys, and equal values give equal results whatever the weights.
inline void warn_of_identical_replicas(ModelConfig& config) {
  const Shape& shape = config.shape;
  if (config.architecture.replicas == 1 || shape.prefix_tokens > 0 || shape.replica_embedding) return;
  const bool expanded = config.architecture.cross_attention == CrossAttention::expanded;
  warn(config,
       concat({"parscale_n_tokens is 0: ",
               expanded ? "replicas separate only once training makes the blocks of cross_attn_proj differ"
                        : "nothing tells the replicas apart, they stay identical for ever",
               "; set parscale_n_tokens above 0 or parscale_replica_embedding to true"}));
}

}  // namespace detail

/// Brings a configuration into the one form that the programs are compiled for, and warns of what cannot be
/// meant: one replica is plain Qwen2; layers that cross are listed in the shape; layers outside the model are
/// left out; a model where no layer crosses has the kind `none`.
inline ModelConfig canonical(ModelConfig config) {
  Architecture& arch = config.architecture;
  Shape& shape = config.shape;
  if (arch.replicas == 1 && arch.cross_attention != CrossAttention::none)
    detail::warn(
        config,
        "enable_cross_attn with parscale_n = 1: one replica has nobody to attend to, this is plain Qwen2");
  if (arch.replicas == 1) shape.replica_embedding = false;
  if (arch.replicas > 1 && arch.cross_attention != CrossAttention::none) {
    detail::list_cross_layers(config);
    arch.cross_layers = LayerSet::at_run_time();
    if (shape.cross_layers.empty()) arch.cross_attention = CrossAttention::none;
  }
  arch = parscale::canonical(arch);
  if (arch.cross_attention == CrossAttention::none) shape.cross_layers.clear();
  if (arch.cross_attention != CrossAttention::sublayer) shape.replica_rope = false;
  detail::warn_of_identical_replicas(config);
  return config;
}

namespace detail {

inline CrossAttention cross_attention_of(const JsonFields& fields) {
  if (!fields.flag_or("enable_cross_attn", false)) return CrossAttention::none;
  const std::string kind = fields.text_or("parscale_cross_attn_kind", "expanded");
  if (kind == "expanded") return CrossAttention::expanded;
  if (kind == "sublayer") return CrossAttention::sublayer;
  refuse(fields, "parscale_cross_attn_kind",
         concat({"it is \"", kind, "\", known are expanded and sublayer"}));
}

inline Architecture architecture_of(const JsonFields& fields, const Shape& shape) {
  if (fields.find("head_dim") == nullptr && shape.hidden % shape.heads != 0)
    throw InputError({.what = "hidden_size is not a multiple of num_attention_heads, and head_dim is missing",
                      .where = fields.where(),
                      .why = concat({shape.hidden, " / ", shape.heads})});
  const Index head_dim = fields.integer_or("head_dim", shape.hidden / shape.heads, 1);
  if (head_dim < 8 || head_dim > 256 || head_dim % 8 != 0)
    refuse(fields, "head_dim", concat({"heads have ", head_dim, " features; multiples of 8 up to 256 are"}));
  return {.head_dim = static_cast<int>(head_dim),
          .replicas = static_cast<int>(fields.integer_or("parscale_n", 1, 1, 64)),
          .cross_attention = cross_attention_of(fields),
          .cross_layers =
              fields.find("parscale_cross_attn_layers") ? LayerSet::at_run_time() : LayerSet::every()};
}

inline Shape shape_of(const JsonFields& fields) {
  Shape shape;
  shape.layers = fields.integer("num_hidden_layers", 1, 65536);
  shape.hidden = fields.integer("hidden_size", 1);
  shape.intermediate = fields.integer("intermediate_size", 1);
  shape.heads = fields.integer("num_attention_heads", 1);
  shape.kv_heads = fields.integer_or("num_key_value_heads", shape.heads, 1);
  shape.vocabulary = fields.integer("vocab_size", 1);
  shape.prefix_tokens = fields.integer_or("parscale_n_tokens", 48, 0);
  shape.rope_theta = rope_theta(fields);
  shape.rms_norm_eps = fields.number_or("rms_norm_eps", 1e-6);
  shape.smoothing = fields.number_or("parscale_attn_smooth", 0.01);
  shape.initializer_range = fields.number_or("initializer_range", 0.02);
  shape.tied = fields.flag_or("tie_word_embeddings", false);
  shape.replica_rope = fields.flag_or("enable_replica_rope", false);
  shape.replica_embedding = fields.flag_or("parscale_replica_embedding", false);
  shape.cross_layers = fields.integers("parscale_cross_attn_layers").value_or(std::vector<std::int32_t>{});
  return shape;
}

}  // namespace detail

/// Reads the content of a config.json. `where` names the file in errors. Throws InputError: wrong types and
/// values, and whatever the model would need that this library does not compute.
inline ModelConfig parse_model_config(const Json& json, const std::string& where) {
  const JsonFields fields(json, where);
  detail::check_model_type(fields);
  ModelConfig config;
  config.shape = detail::shape_of(fields);
  config.architecture = detail::architecture_of(fields, config.shape);
  detail::refuse_unsupported(fields, config.shape.layers);
  config.max_position_embeddings = fields.integer_or("max_position_embeddings", 32768, 1);
  if (const auto bos = fields.integers("bos_token_id", true); bos && !bos->empty())
    config.bos_token_id = bos->front();
  config.eos_token_ids = fields.integers("eos_token_id", true).value_or(std::vector<std::int32_t>{});
  config.dtype = detail::stored_dtype(fields);
  if (fields.number_or("attention_dropout", 0.0) != 0.0)
    detail::warn(config, "attention_dropout is ignored: training uses no dropout");
  config = canonical(std::move(config));
  try {
    check(config.architecture, config.shape);
  } catch (const ConfigurationError& error) {
    throw InputError({.what = error.explanation().what, .where = where, .why = error.explanation().why});
  }
  return config;
}

/// The config.json of a model directory, with the end tokens that its generation_config.json names, if it has
/// one.
inline ModelConfig load_model_config(const std::filesystem::path& directory) {
  const auto file = directory / "config.json", generation = directory / "generation_config.json";
  ModelConfig config = parse_model_config(read_json(file), file.string());
  if (!std::filesystem::exists(generation)) return config;
  const Json json = read_json(generation);
  if (auto ids = JsonFields(json, generation.string()).integers("eos_token_id", true))
    config.eos_token_ids = *ids;
  return config;
}

namespace detail {

inline void add_token_ids(Json& json, const ModelConfig& config) {
  if (config.bos_token_id) json["bos_token_id"] = *config.bos_token_id;
  if (config.eos_token_ids.size() == 1) json["eos_token_id"] = config.eos_token_ids.front();
  if (config.eos_token_ids.size() > 1) json["eos_token_id"] = config.eos_token_ids;
}

inline void add_parscale_keys(Json& json, const ModelConfig& config) {
  const Architecture& arch = config.architecture;
  const Shape& shape = config.shape;
  const bool crosses = arch.cross_attention != CrossAttention::none;
  const bool everywhere = static_cast<Index>(shape.cross_layers.size()) == shape.layers;
  json["parscale_n"] = arch.replicas;
  json["parscale_n_tokens"] = shape.prefix_tokens;
  json["parscale_attn_smooth"] = shape.smoothing;
  json["enable_cross_attn"] = crosses;
  json["parscale_cross_attn_layers"] = crosses && !everywhere ? Json(shape.cross_layers) : Json(nullptr);
  if (crosses) json["parscale_cross_attn_kind"] = name_of(arch.cross_attention);
  json["enable_replica_rope"] = shape.replica_rope;
  if (shape.replica_embedding) json["parscale_replica_embedding"] = true;
}

}  // namespace detail

/// The content of a config.json that transformers can load: a plain Qwen2 when there is one replica, else the
/// published ParScale with the keys of the extensions.
inline Json to_json(const ModelConfig& given) {
  const ModelConfig config = canonical(given);
  const Architecture& arch = config.architecture;
  const Shape& shape = config.shape;
  const bool plain = arch.replicas == 1;
  Json json = {
      {"architectures", Json::array({plain ? "Qwen2ForCausalLM" : "Qwen2ParScaleForCausalLM"})},
      {"model_type", plain ? "qwen2" : "qwen2_parscale"},
      {"hidden_act", "silu"},
      {"torch_dtype", config.dtype},
      {"max_position_embeddings", config.max_position_embeddings},
      {"attention_dropout", 0.0},
      {"use_cache", true},
      {"use_sliding_window", false},
      {"sliding_window", nullptr},  // transformers 4.51 masks by it even where use_sliding_window is false
      {"vocab_size", shape.vocabulary},
      {"hidden_size", shape.hidden},
      {"intermediate_size", shape.intermediate},
      {"num_hidden_layers", shape.layers},
      {"num_attention_heads", shape.heads},
      {"num_key_value_heads", shape.kv_heads},
      {"head_dim", arch.head_dim},
      {"rope_theta", shape.rope_theta},
      {"rms_norm_eps", shape.rms_norm_eps},
      {"tie_word_embeddings", shape.tied},
      {"initializer_range", shape.initializer_range},
  };
  detail::add_token_ids(json, config);
  if (!plain) detail::add_parscale_keys(json, config);
  return json;
}

}  // namespace parscale::io
