/// Joins the `parscale` options with the config.json of a base model.
#pragma once

#include <parscale/io/json.hpp>
#include <string>
#include <vector>

#include "options.hpp"

namespace parscale::program {

/// The config.json of the model to train, for io::parse_model_config(), and what a user should know of it.
struct MergedConfig {
  io::Json config;
  std::vector<std::string> notes = {};     ///< what of the base was replaced
  std::vector<std::string> warnings = {};  ///< given options that have no effect
};

/// `base` is the config.json of a checkpoint, or the `model` section. Its own parscale keys stay unless the
/// user gave them; keys that neither has take the built-in defaults.
MergedConfig merge_model_config(const Options& options, io::Json base);

}  // namespace parscale::program
