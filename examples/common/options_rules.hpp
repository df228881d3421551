/// The rules between keys, applied once all of them are known.
#pragma once

#include "options.hpp"

namespace parscale::program {

/// Resolves what depends on several keys and adds notes and warnings. Throws ConfigurationError for
/// combinations that contradict each other or that the machine cannot do.
void apply_rules(Options& options, Machine machine);

}  // namespace parscale::program
