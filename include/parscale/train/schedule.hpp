/// Learning-rate schedules, as functions of the step alone. Names as in Hugging Face's Trainer.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string>
#include <string_view>

#include "../config.hpp"

namespace parscale {

enum class ScheduleKind {
  constant,
  constant_with_warmup,  ///< linear warm-up, then the peak
  linear,                ///< warm-up, then straight down to the floor at the last step
  cosine,                ///< warm-up, then half a cosine down to the floor at the last step
  warmup_stable_decay,   ///< warm-up, the peak, then straight down to the floor over the last decay_steps
                         ///< (WSD)
};

inline constexpr std::array<std::string_view, 5> schedule_names{"constant", "constant_with_warmup", "linear",
                                                                "cosine", "warmup_stable_decay"};

inline ScheduleKind schedule_named(std::string_view name) {
  for (std::size_t i = 0; i < schedule_names.size(); ++i)
    if (schedule_names[i] == name) return static_cast<ScheduleKind>(i);
  std::string known;
  for (std::string_view other : schedule_names) known += (known.empty() ? "" : ", ") + std::string(other);
  throw ConfigurationError(
      {.what = "Unknown lr_scheduler_type", .why = std::string(name), .remedy = "one of " + known});
}

struct Schedule {
  ScheduleKind kind = ScheduleKind::constant_with_warmup;
  double peak = 3e-4;
  Index warmup_steps = 0;
  Index max_steps = 1;
  Index decay_steps = 0;    ///< warmup_stable_decay only
  double min_lr_ratio = 0;  ///< the floor, as a part of the peak

  /// The rate of the update that follows `done` finished updates (0 for the first).
  double operator()(Index done) const {
    if (kind != ScheduleKind::constant && done < warmup_steps)
      return peak * static_cast<double>(done) / static_cast<double>(std::max<Index>(1, warmup_steps));
    return peak * (min_lr_ratio + (1 - min_lr_ratio) * remaining(done));
  }

 private:
  /// 1 at the peak, 0 at the end.
  double remaining(Index done) const {
    const Index begin = kind == ScheduleKind::warmup_stable_decay ? max_steps - decay_steps : warmup_steps;
    const double part = done <= begin
                            ? 0.0
                            : std::min(1.0, static_cast<double>(done - begin) /
                                                static_cast<double>(std::max<Index>(1, max_steps - begin)));
    switch (kind) {
      case ScheduleKind::linear:
      case ScheduleKind::warmup_stable_decay:
        return 1.0 - part;
      case ScheduleKind::cosine:
        return 0.5 * (1.0 + std::cos(std::numbers::pi * part));
      default:
        return 1.0;
    }
  }
};

}  // namespace parscale
