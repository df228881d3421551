#include "progress.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <utility>

#include "console.hpp"

namespace parscale::program {
namespace {

constexpr double seconds_between_draws = 0.1;

/// Runs `print` and forgets whatever it throws: no run may end because of its own log.
template <class Print>
void quietly(Print print) noexcept {
  try {
    print();
  } catch (const std::exception&) {
    return;
  }
}

}  // namespace

Clock steady_clock() {
  return [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
}

Progress::Progress(Setup setup)
    : setup_(std::move(setup)),
      live_(setup_.live && columns_of(setup_.out) > 0),
      coloured_(has_colours(setup_.out)),
      step_(setup_.first_step),
      line_step_(setup_.first_step),
      last_(setup_.clock()) {}

Progress::~Progress() {
  quietly([&] { erase(); });
}

void Progress::advance(Index step) noexcept {
  quietly([&] {
    const double now = setup_.clock();
    line_seconds_ += now - last_;
    seconds_ += now - last_;
    last_ = now;
    step_ = step;
    if (live_ && now - last_draw_ >= seconds_between_draws) {
      last_draw_ = now;
      draw();
    }
  });
}

void Progress::log(const StepReport& report) noexcept {
  quietly([&] {
    has_loss_ = true;
    last_loss_ = report.loss;
    const int digits = static_cast<int>(std::to_string(setup_.total_steps).size());
    const double left = seconds_left();
    say(fmt::format("step {:>{}}/{}  loss {:.4f}  grad {:.3g}  lr {:.3g}  {} tok/s  {}{}  {}", report.step,
                    digits, setup_.total_steps, report.loss, report.gradient_norm, report.learning_rate,
                    write_count(tokens_per_second()),
                    report.mfu > 0 ? fmt::format("{:.1f}% MFU  ", 100 * report.mfu) : "",
                    write_bytes(report.memory), left < 0 ? "" : write_duration(left) + " left"));
    line_step_ = step_;
    line_seconds_ = 0;
  });
}

void Progress::say(const std::string& text) noexcept {
  quietly([&] {
    erase();
    print_quietly(setup_.out, text + "\n");
    if (live_) draw();
  });
}

void Progress::skip_time() noexcept {
  quietly([&] { last_ = setup_.clock(); });
}

double Progress::tokens_per_second() const noexcept {
  if (line_seconds_ <= 0) return 0;
  return static_cast<double>((step_ - line_step_) * setup_.tokens_a_step) / line_seconds_;
}

double Progress::seconds_left() const noexcept {
  const Index done = step_ - setup_.first_step;
  if (done <= 0) return -1;
  return seconds_ / static_cast<double>(done) * static_cast<double>(setup_.total_steps - step_);
}

void Progress::erase() {
  if (std::exchange(drawn_, false)) print_quietly(setup_.out, "\r\x1b[K");
}

void Progress::draw() {
  if (step_ >= setup_.total_steps) return erase();
  print_quietly(setup_.out, "\r" + bar(columns_of(setup_.out)) + "\x1b[K");
  drawn_ = true;
}

/// "[######------] 42% 84/200  loss 3.21  1 min 20 s left", never wider than the terminal.
std::string Progress::bar(int columns) const {
  const double share =
      static_cast<double>(step_) / static_cast<double>(std::max<Index>(1, setup_.total_steps));
  const double left = seconds_left();
  std::string words = fmt::format(" {:3.0f}%  {}/{}", std::floor(100 * share), step_, setup_.total_steps);
  if (has_loss_) words += fmt::format("  loss {:.3f}", last_loss_);
  if (left >= 0) words += "  " + write_duration(left) + " left";
  const int room = std::min(40, columns - static_cast<int>(words.size()) - 1);
  constexpr int narrowest = 8;
  if (room < narrowest) return words.substr(0, static_cast<std::size_t>(std::max(0, columns - 1)));
  const auto filled = static_cast<int>(std::lround(share * room));
  std::string done, open;
  for (int i = 0; i < room; ++i) (i < filled ? done : open) += i < filled ? "━" : "─";
  return coloured_ ? "\x1b[36m" + done + "\x1b[90m" + open + "\x1b[0m" + words : done + open + words;
}

namespace {

/// A size that the kernel gives for this process; 0 where it does not.
std::uint64_t status_bytes(std::string_view field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field)) return std::stoull(line.substr(field.size())) * 1024;
  return 0;
}

}  // namespace

std::uint64_t peak_memory() { return status_bytes("VmHWM:"); }
std::uint64_t current_memory() { return status_bytes("VmRSS:"); }

std::string write_bytes(std::uint64_t bytes) {
  constexpr double mebi = 1024.0 * 1024.0;
  const double size = static_cast<double>(bytes) / mebi;
  return size < 1024 ? fmt::format("{:.0f} MiB", size) : fmt::format("{:.2f} GiB", size / 1024);
}

std::string write_duration(double seconds) {
  const auto s = static_cast<std::int64_t>(std::llround(std::max(0.0, std::min(seconds, 1e12))));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{} h {:02} min", s / 3600, s % 3600 / 60);
  return fmt::format("{} d {} h", s / 86400, s % 86400 / 3600);
}

std::string write_count(double count) {
  if (count < 999.5) return fmt::format("{:.0f}", count);
  if (count < 999.5e3) return fmt::format("{:.3g}k", count / 1e3);
  if (count < 999.5e6) return fmt::format("{:.3g}M", count / 1e6);
  return fmt::format("{:.3g}G", count / 1e9);
}

}  // namespace parscale::program
