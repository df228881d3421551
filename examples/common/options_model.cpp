#include "options_model.hpp"

#include "options_table.hpp"

namespace parscale::program {
namespace {

bool is_on(const io::Json& config, const char* name) {
  const io::Json* found = config.find(name);
  return found != nullptr && found->is_boolean() && found->get<bool>();
}

/// A given key replaces what the base says, any other only fills what the base leaves open.
void lay_over(const Options& options, const Key& key, MergedConfig& merged) {
  const io::Json* own = merged.config.find(key.name);
  const bool given = options.is_given(key.full_name());
  if (own != nullptr && !given) return;
  const io::Json value = to_json(parse_yaml(key.print(options), {.name = key.full_name()}));
  if (own != nullptr && *own != value)
    merged.notes.push_back(key.full_name() + "=" + value.dump() + " replaces the model's own " + own->dump());
  merged.config[key.name] = value;
}

}  // namespace

MergedConfig merge_model_config(const Options& options, io::Json base) {
  MergedConfig merged{.config = std::move(base)};
  for (const Key& key : option_keys())
    if (key.section == "parscale") lay_over(options, key, merged);
  const auto warn_if_given = [&](const std::string& name, const std::string& need) {
    if (options.is_given("parscale." + name))
      merged.warnings.push_back("parscale." + name + " has no effect without parscale." + need);
  };
  if (!is_on(merged.config, "enable_cross_attn")) {
    warn_if_given("parscale_cross_attn_layers", "enable_cross_attn=true");
    warn_if_given("parscale_cross_attn_kind", "enable_cross_attn=true");
    if (options.parscale.enable_replica_rope) warn_if_given("enable_replica_rope", "enable_cross_attn=true");
  } else if (is_on(merged.config, "enable_replica_rope") &&
             merged.config["parscale_cross_attn_kind"] != "sublayer") {
    warn_if_given("enable_replica_rope", "parscale_cross_attn_kind=sublayer");
  }
  return merged;
}

}  // namespace parscale::program
