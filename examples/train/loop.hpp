/// The steps of a run, from the first (or the one after a checkpoint) to the last, and what is written on the
/// way.
#pragma once

#include "run.hpp"

namespace parscale::program {

/// Trains to the end, or until a signal asks to stop. Returns the program's exit code.
int train(Run& run);

}  // namespace parscale::program
