/// The dialects of Qwen2's config.json: where the rotary base stands, how the dtype is called, and everything
/// a config.json can ask for that this library would compute wrongly, refused by name.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "json_fields.hpp"

namespace parscale::io::detail {

[[noreturn]] inline void refuse(const JsonFields& fields, std::string_view key, std::string_view why,
                                const char* remedy = "") {
  throw InputError({.what = concat({"This model needs something that is not supported: ", key}),
                    .where = fields.where(),
                    .why = std::string(why),
                    .remedy = remedy});
}

/// Sliding windows: `use_sliding_window` alone is harmless when no layer lies above max_window_layers.
inline void refuse_sliding_windows(const JsonFields& fields, Index layers) {
  if (const Json* types = fields.find("layer_types")) {
    if (!types->is_array()) fields.fail("layer_types", "a list", *types);
    for (const Json& type : *types) {
      if (type != "full_attention") refuse(fields, "layer_types", concat({"a layer is ", shown(type)}));
    }
  }
  const bool used = fields.flag_or("use_sliding_window", false);
  const bool window = fields.find("sliding_window") != nullptr;
  const Index first = fields.integer_or("max_window_layers", 28, 0);
  if (used && window && first < layers)
    refuse(fields, "use_sliding_window",
           concat({"layers ", first, " to ", layers - 1, " would look back through a window only"}));
}

/// Refuses what changes the model's arithmetic beyond what this library computes.
inline void refuse_unsupported(const JsonFields& fields, Index layers) {
  if (const std::string act = fields.text_or("hidden_act", "silu"); act != "silu")
    refuse(fields, "hidden_act", concat({"it is \"", act, "\", only silu is"}));
  if (fields.find("quantization_config") != nullptr)
    refuse(fields, "quantization_config", "the weights are quantised", "use the model's unquantised weights");
  if (fields.number_or("partial_rotary_factor", 1.0) != 1.0)
    refuse(fields, "partial_rotary_factor", "only whole heads are rotated");
  refuse_sliding_windows(fields, layers);
}

/// The rotary base out of `rope_parameters` or `rope_scaling`, when it stands there; refuses every scaling of
/// positions.
inline std::optional<double> rope_theta_within(const JsonFields& fields, std::string_view key) {
  const Json* value = fields.find(key);
  if (value == nullptr) return std::nullopt;
  const JsonFields rope(*value, fields.where(key));
  const std::string type = rope.text_or("rope_type", rope.text_or("type", "default"));
  if (type != "default") refuse(fields, key, concat({"its type is \"", type, "\", only default is"}));
  if (rope.number_or("partial_rotary_factor", 1.0) != 1.0)
    refuse(fields, key, "partial_rotary_factor: only whole heads are rotated");
  for (const auto& [name, entry] : value->members()) {
    if (entry.is_object()) refuse(fields, key, concat({"it differs between layers: ", name}));
  }
  if (rope.find("rope_theta") == nullptr) return std::nullopt;
  return rope.number_or("rope_theta", 0.0);
}

/// The rotary base, wherever it stands; 10000 when nowhere. Two places must agree.
inline double rope_theta(const JsonFields& fields) {
  std::optional<double> base;
  const auto agree = [&](double with) {
    if (base.value_or(with) != with)
      throw InputError(
          {.what = "rope_theta stands in two places with different values", .where = fields.where()});
    base = with;
  };
  if (fields.find("rope_theta") != nullptr) agree(fields.number_or("rope_theta", 0.0));
  for (const char* key : {"rope_parameters", "rope_scaling"})
    if (const auto within = rope_theta_within(fields, key)) agree(*within);
  return base.value_or(10000.0);
}

/// `dtype`, or `torch_dtype` in older files, without the prefix "torch.".
inline std::string stored_dtype(const JsonFields& fields) {
  const char* key = fields.find("dtype") != nullptr ? "dtype" : "torch_dtype";
  std::string name = fields.text_or(key, "float32");
  if (name.starts_with("torch.")) name.erase(0, 6);
  for (const char* known : {"float32", "bfloat16", "float16", "float64"}) {
    if (name == known) return name;
  }
  refuse(fields, key, concat({"it is \"", name, "\"; known are float32, bfloat16, float16 and float64"}));
}

/// Throws InputError unless the model is a Qwen2 or a ParScale on Qwen2; a configuration written by hand need
/// not say so.
inline void check_model_type(const JsonFields& fields) {
  const std::string type = fields.text_or("model_type", "qwen2");
  if (type != "qwen2" && type != "qwen2_parscale")
    refuse(fields, "model_type", concat({"it is \"", type, "\", known are qwen2 and qwen2_parscale"}));
}

}  // namespace parscale::io::detail
