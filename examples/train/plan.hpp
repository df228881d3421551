/// The memory of a run that somebody thinks about: training.plan_world.
#pragma once

#include "common/options.hpp"

namespace parscale::program {

/// Prints what each of options.training.plan_world processes would need, and how it goes down as they become
/// more. Nothing is allocated, and no GPU is needed. Returns the exit code.
int print_plan(const Options& options);

}  // namespace parscale::program
