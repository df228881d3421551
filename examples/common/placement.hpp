/// Where a model computes: what this machine and this build have, and what a user asked for.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "any_model.hpp"
#include "options.hpp"

namespace parscale::program {

/// What these programs can use here: no GPU when they were built without CUDA.
Machine this_machine();

/// The place that a training run's resolved options name.
Placement placement_of(const TrainingOptions& options);

/// The options of programs that only run a model: --device, --dtype and --threads.
struct PlacementCommand {
  std::string device = "auto", dtype = "auto";
  int threads = 0;

  void add_to(CLI::App& app);
  /// Throws ConfigurationError for a device or type that this machine does not have.
  Placement placement() const;
};

}  // namespace parscale::program
