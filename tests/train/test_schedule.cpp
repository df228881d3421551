// Learning-rate schedules at their corners.
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <parscale/train/schedule.hpp>

#include "../support/thrown.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

Schedule of(ScheduleKind kind) {
  return {.kind = kind, .peak = 2.0, .warmup_steps = 10, .max_steps = 110, .decay_steps = 50};
}

bool near(double a, double b) { return std::abs(a - b) < 1e-12; }

}  // namespace

TEST_CASE("The constant schedule knows no warm-up") {
  const Schedule rate = of(ScheduleKind::constant);
  for (Index step : {0, 1, 10, 109, 110, 1000}) CHECK(rate(step) == 2.0);
}

TEST_CASE("Every other schedule warms up in a straight line from zero") {
  for (auto kind : {ScheduleKind::constant_with_warmup, ScheduleKind::linear, ScheduleKind::cosine,
                    ScheduleKind::warmup_stable_decay}) {
    const Schedule rate = of(kind);
    CHECK(rate(0) == 0.0);
    CHECK(near(rate(1), 0.2));
    CHECK(near(rate(9), 1.8));
    CHECK(near(rate(10), 2.0));
  }
}

TEST_CASE("Without warm-up the first update has the peak") {
  for (auto kind : {ScheduleKind::constant_with_warmup, ScheduleKind::linear, ScheduleKind::cosine,
                    ScheduleKind::warmup_stable_decay}) {
    Schedule rate = of(kind);
    rate.warmup_steps = 0;
    CHECK(rate(0) == 2.0);
  }
}

TEST_CASE("The constant schedule with warm-up stays at the peak") {
  const Schedule rate = of(ScheduleKind::constant_with_warmup);
  for (Index step : {10, 60, 110, 100000}) CHECK(rate(step) == 2.0);
}

TEST_CASE("The linear schedule falls straight to zero at the last step") {
  const Schedule rate = of(ScheduleKind::linear);
  CHECK(near(rate(11), 2.0 * 99 / 100));
  CHECK(near(rate(60), 1.0));
  CHECK(near(rate(109), 2.0 / 100));
  CHECK(rate(110) == 0.0);
  CHECK(rate(200) == 0.0);
}

TEST_CASE("The cosine schedule falls along half a cosine") {
  const Schedule rate = of(ScheduleKind::cosine);
  CHECK(near(rate(35), 1 + std::sqrt(0.5)));
  CHECK(near(rate(60), 1.0));
  CHECK(near(rate(85), 1 - std::sqrt(0.5)));
  CHECK(near(rate(110), 0.0));
  CHECK(near(rate(200), 0.0));
}

TEST_CASE("Warm-up, stable, decay falls straight over its last steps") {
  const Schedule rate = of(ScheduleKind::warmup_stable_decay);
  CHECK(rate(30) == 2.0);
  CHECK(rate(60) == 2.0);
  CHECK(near(rate(61), 2.0 * 49 / 50));
  CHECK(near(rate(85), 1.0));
  CHECK(rate(110) == 0.0);
  Schedule never = rate;
  never.decay_steps = 0;
  CHECK(never(109) == 2.0);
}

TEST_CASE("Falling schedules end at the floor") {
  for (auto kind : {ScheduleKind::linear, ScheduleKind::cosine, ScheduleKind::warmup_stable_decay}) {
    Schedule rate = of(kind);
    rate.min_lr_ratio = 0.1;
    CHECK(near(rate(10), 2.0));
    CHECK(near(rate(110), 0.2));
    CHECK(near(rate(500), 0.2));
  }
  Schedule linear = of(ScheduleKind::linear);
  linear.min_lr_ratio = 0.1;
  CHECK(near(linear(60), 1.1));
}

TEST_CASE("A run that ends within its warm-up has finite rates") {
  for (auto kind : {ScheduleKind::linear, ScheduleKind::cosine, ScheduleKind::warmup_stable_decay}) {
    Schedule rate = of(kind);
    rate.max_steps = 5;
    for (Index step = 0; step < 20; ++step) {
      CHECK(rate(step) >= 0);
      CHECK(rate(step) <= 2.0);
    }
  }
}

TEST_CASE("Schedules have the names of Hugging Face's Trainer") {
  CHECK(schedule_named("constant") == ScheduleKind::constant);
  CHECK(schedule_named("constant_with_warmup") == ScheduleKind::constant_with_warmup);
  CHECK(schedule_named("linear") == ScheduleKind::linear);
  CHECK(schedule_named("cosine") == ScheduleKind::cosine);
  CHECK(schedule_named("warmup_stable_decay") == ScheduleKind::warmup_stable_decay);
}

TEST_CASE("An unknown schedule is refused with the known ones") {
  const auto message = thrown<ConfigurationError>([] { schedule_named("polynomial"); });
  CHECK(contains(message, "polynomial"));
  CHECK(contains(message, "constant, constant_with_warmup, linear, cosine, warmup_stable_decay"));
}
