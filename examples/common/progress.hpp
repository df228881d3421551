/// What a person sees of a run while it goes: a line a logging step, and on a terminal a live bar below.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <parscale/config.hpp>
#include <string>

namespace parscale::program {

/// What a line of the log says.
struct StepReport {
  Index step = 0;  ///< steps done
  double loss = 0;
  double gradient_norm = 0;
  double learning_rate = 0;
  std::uint64_t memory = 0;  ///< bytes in use at most so far
  double mfu = 0;            ///< part of the device's peak; 0 where not known
};

/// Seconds on a clock that never goes back.
using Clock = std::function<double()>;
Clock steady_clock();

/// Prints a run's progress; never throws and never fails because nobody reads it.
class Progress {
 public:
  struct Setup {
    Index total_steps;
    Index tokens_a_step;
    Index first_step = 0;  ///< steps that an earlier part of the run has done
    bool live = true;      ///< allow the bar when `out` is a terminal
    std::FILE* out = stdout;
    Clock clock = steady_clock();
  };
  explicit Progress(Setup setup);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Call after every step: moves the bar.
  void advance(Index step) noexcept;
  /// A line of the log. Time spent since the line before counts as training.
  void log(const StepReport& report) noexcept;
  /// Any other line (an evaluation, a checkpoint), above the bar.
  void say(const std::string& text) noexcept;
  /// Takes the time since the last advance() out of the rate: evaluations and checkpoints are not training.
  void skip_time() noexcept;

  /// Over the steps since the last line; 0 before the first step.
  double tokens_per_second() const noexcept;
  /// Until the last step, at the average speed so far; negative while unknown.
  double seconds_left() const noexcept;

 private:
  void draw();
  void erase();
  std::string bar(int columns) const;

  Setup setup_;
  bool live_;
  bool coloured_;
  bool drawn_ = false;
  Index step_;
  Index line_step_;          // step of the last line
  double line_seconds_ = 0;  // training time since the last line
  double seconds_ = 0;       // training time since the start
  double last_ = 0;          // clock at the last advance
  double last_draw_ = -1;
  double last_loss_ = 0;
  bool has_loss_ = false;
};

/// The most memory that this process has had in use, in bytes (VmHWM); 0 where the system does not say.
std::uint64_t peak_memory();
/// The memory that it has in use now (VmRSS).
std::uint64_t current_memory();

/// 1.5 GiB, 820 MiB
std::string write_bytes(std::uint64_t bytes);
/// 3 s, 4 min 10 s, 2 h 05 min, 3 d 4 h
std::string write_duration(double seconds);
/// 950, 12.3k, 1.05M
std::string write_count(double count);

}  // namespace parscale::program
