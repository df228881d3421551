/// Whether a training run fits its GPU, and what it computes twice to do so: decided by plans, before
/// anything is allocated.
#pragma once

#include "any_model.hpp"

namespace parscale::program {

/// A run that looks for room.
struct FitRequest {
  TrainerOptions trainer;
  bool choose = true;         ///< what is computed twice; else as trainer.keep says
  Index evaluation_rows = 0;  ///< of evaluations between the steps
  /// Whether something holds on every process that shares the model.
  std::function<bool(bool here)> everywhere = [](bool here) { return here; };
};

/// What the backward finds kept: as much as fits what is free on `device`, which holds nothing of the model
/// yet. Throws ConfigurationError when even the least does not fit, saying which options save how much.
Keep fitting(const AnyModel& model, const DeviceReport& device, const FitRequest& request);

}  // namespace parscale::program
