#include "chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <limits>
#include <parscale/core/error.hpp>
#include <parscale/io/file.hpp>

#include "metrics.hpp"

namespace parscale::program {
namespace {

// The canvas, in pixels, and the field of the curves inside of it.
constexpr double width = 960, height = 520;
constexpr double left = 72, right = 856, top = 104, bottom = 464;
constexpr std::size_t most_points = 600;  // of a drawn line: more than there are pixels to show them

/// Colours that differ for colour-blind eyes too, as light and dark ground need them.
struct Ink {
  const char* light;
  const char* dark;
};
constexpr Ink palette[] = {{"#2563eb", "#60a5fa"}, {"#ea580c", "#fb923c"}, {"#0d9488", "#2dd4bf"},
                           {"#9333ea", "#c084fc"}, {"#be123c", "#fb7185"}, {"#4d7c0f", "#a3e635"}};
constexpr int inks = static_cast<int>(std::size(palette));

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void include(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

/// An axis with ticks at round numbers.
struct Axis {
  double low, high, step;
  double from, to;  // pixels

  double at(double value) const { return from + (value - low) / (high - low) * (to - from); }
  std::vector<double> ticks() const {
    std::vector<double> out;
    const auto first = static_cast<long>(std::ceil(low / step - 1e-9));
    for (long i = first; static_cast<double>(i) * step <= high + 1e-9 * step; ++i)
      out.push_back(static_cast<double>(i) * step);
    return out;
  }
};

/// 1, 2 or 5 times a power of ten, so that about `count` steps cover the span.
double round_step(double span, double count) {
  const double raw = span / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power * 1.0001) return factor * power;
  return 10 * power;
}

Axis make_axis(Range range, double count, double from, double to, bool whole_steps) {
  if (range.empty()) range = {0, 1};
  if (range.high - range.low < 1e-9 * std::max(1.0, std::abs(range.high))) {
    range.low -= 0.5;
    range.high += 0.5;
  }
  const double step = round_step(range.high - range.low, count);
  if (!whole_steps) return {range.low, range.high, std::max(1.0, step), from, to};
  return {std::floor(range.low / step + 1e-9) * step, std::ceil(range.high / step - 1e-9) * step, step, from,
          to};
}

/// Decimals that tell two neighbouring ticks apart.
std::string tick_text(double value, double step) {
  if (std::abs(value) < step * 1e-6) value = 0;
  if (std::abs(value) >= 10000 && step >= 100) return fmt::format("{:.6g}k", value / 1000);
  const int decimals = std::clamp(static_cast<int>(-std::floor(std::log10(step) + 1e-9)), 0, 6);
  return fmt::format("{:.{}f}", value, decimals);
}

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    }
  }
  return out;
}

/// Means of at most `most_points` stretches of equal length, without what is not finite.
std::vector<ChartPoint> stretch_means(const std::vector<ChartPoint>& points) {
  std::vector<ChartPoint> finite, means;
  std::copy_if(points.begin(), points.end(), std::back_inserter(finite),
               [](const ChartPoint& p) { return std::isfinite(p.y); });
  const std::size_t stretches = std::min(finite.size(), most_points);
  for (std::size_t i = 0; i < stretches; ++i) {
    ChartPoint sum;
    const std::size_t begin = finite.size() * i / stretches, end = finite.size() * (i + 1) / stretches;
    for (std::size_t k = begin; k < end; ++k) sum = {sum.x + finite[k].x, sum.y + finite[k].y};
    means.push_back({sum.x / static_cast<double>(end - begin), sum.y / static_cast<double>(end - begin)});
  }
  return means;
}

/// The value at points[i].x of the straight line that fits the points around it best, near ones weighing
/// more. A running mean would lag behind wherever a loss falls, and at both ends.
double local_fit(const std::vector<ChartPoint>& points, std::size_t i, std::size_t reach) {
  const std::size_t begin = i > reach ? i - reach : 0, end = std::min(points.size(), i + reach + 1);
  double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0;
  for (std::size_t k = begin; k < end; ++k) {
    const double distance = std::abs(static_cast<double>(k) - static_cast<double>(i));
    const double weight = 1 - distance / static_cast<double>(reach + 1);
    const double x = points[k].x - points[i].x;
    w += weight;
    wx += weight * x;
    wy += weight * points[k].y;
    wxx += weight * x * x;
    wxy += weight * x * points[k].y;
  }
  const double spread = w * wxx - wx * wx;
  return spread > 1e-12 * w * wxx ? (wxx * wy - wx * wxy) / spread : wy / w;
}

/// The curve behind noisy measurements.
std::vector<ChartPoint> smoothed(const std::vector<ChartPoint>& points) {
  const std::vector<ChartPoint> means = stretch_means(points);
  std::vector<ChartPoint> out;
  for (std::size_t i = 0; i < means.size(); ++i)
    out.push_back({means[i].x, local_fit(means, i, means.size() / 40)});
  return out;
}

/// Few enough points to draw: the lowest and the highest of each stretch, so that spikes stay.
std::vector<ChartPoint> thinned(const std::vector<ChartPoint>& points) {
  if (points.size() <= most_points) return points;
  const std::size_t stretches = most_points / 2;
  std::vector<ChartPoint> out{points.front()};
  for (std::size_t i = 0; i < stretches; ++i) {
    const auto begin = points.begin() + static_cast<std::ptrdiff_t>(points.size() * i / stretches);
    const auto end = points.begin() + static_cast<std::ptrdiff_t>(points.size() * (i + 1) / stretches);
    const auto below = [](const ChartPoint& a, const ChartPoint& b) { return a.y < b.y; };
    auto [low, high] = std::minmax_element(begin, end, below);
    if (high < low) std::swap(low, high);
    out.push_back(*low);
    if (high != low) out.push_back(*high);
  }
  out.push_back(points.back());
  return out;
}

/// The drawing of one chart, part by part.
class Drawing {
 public:
  explicit Drawing(const Chart& chart) : chart_(chart) {
    for (const ChartSeries& series : chart.series)
      lines_.push_back(series.smooth && !series.marked ? smoothed(series.points) : series.points);
    Range x, y;
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      for (const ChartPoint& p : chart.series[i].points) x.include(p.x);
      // The first steps from random weights would flatten all the rest: they may leave through the top.
      const std::size_t first = chart.series[i].marked ? 0 : lines_[i].size() / 40;
      for (std::size_t k = first; k < lines_[i].size(); ++k) y.include(lines_[i][k].y);
    }
    x_ = make_axis(x, 8, left, right, false);
    y_ = make_axis(y, 6, bottom, top, true);
  }

  std::string svg() {
    begin();
    headline();
    axes();
    for (std::size_t i = 0; i < lines_.size(); ++i) faint_line(i);
    for (std::size_t i = 0; i < lines_.size(); ++i) line(i);
    final_values();
    legend();
    return out_ + "</svg>\n";
  }

 private:
  template <class... Values>
  void add(fmt::format_string<Values...> format, Values&&... values) {
    out_ += fmt::format(format, std::forward<Values>(values)...) + "\n";
  }

  int ink(std::size_t i) const {
    const int chosen = chart_.series[i].colour;
    return (chosen < 0 ? static_cast<int>(i) : chosen) % inks;
  }

  void begin() {
    add(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" )"
        R"(role="img" aria-label="{2}" )"
        R"(font-family="system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif">)",
        width, height, escape(chart_.title));
    add("<title>{}</title>", escape(chart_.title));
    std::string light =
        ".ground{fill:#ffffff}.ink{fill:#111827}.soft{fill:#6b7280}.grid{stroke:#e5e7eb}"
        ".base{stroke:#9ca3af}.hole{fill:#ffffff}";
    std::string dark =
        ".ground{fill:#0d1117}.ink{fill:#f3f4f6}.soft{fill:#9ca3af}.grid{stroke:#21262d}"
        ".base{stroke:#6b7280}.hole{fill:#0d1117}";
    for (int i = 0; i < inks; ++i) {
      light += fmt::format(".s{0}{{stroke:{1}}}.t{0}{{fill:{1}}}", i, palette[i].light);
      dark += fmt::format(".s{0}{{stroke:{1}}}.t{0}{{fill:{1}}}", i, palette[i].dark);
    }
    add("<style>{}@media (prefers-color-scheme:dark){{{}}}</style>", light, dark);
    add(R"(<clipPath id="field"><rect x="{}" y="{}" width="{}" height="{}"/></clipPath>)", left, top - 6,
        right - left, bottom - top + 12);
    add(R"(<rect class="ground" width="{}" height="{}" rx="8"/>)", width, height);
  }

  void headline() {
    add(R"(<text class="ink" x="24" y="38" font-size="20" font-weight="600">{}</text>)",
        escape(chart_.title));
    add(R"(<text class="soft" x="24" y="61" font-size="13">{}</text>)", escape(chart_.subtitle));
  }

  void axes() {
    for (const double value : y_.ticks()) {
      add(R"(<line class="grid" x1="{0}" y1="{2:.1f}" x2="{1}" y2="{2:.1f}"/>)", left, right, y_.at(value));
      add(R"(<text class="soft" x="{}" y="{:.1f}" font-size="12" text-anchor="end">{}</text>)", left - 10,
          y_.at(value) + 4, tick_text(value, y_.step));
    }
    add(R"(<line class="base" x1="{0}" y1="{2}" x2="{1}" y2="{2}"/>)", left, right, bottom);
    for (const double value : x_.ticks()) {
      add(R"(<line class="base" x1="{0:.1f}" y1="{1}" x2="{0:.1f}" y2="{2}"/>)", x_.at(value), bottom,
          bottom + 5);
      add(R"(<text class="soft" x="{:.1f}" y="{}" font-size="12" text-anchor="middle">{}</text>)",
          x_.at(value), bottom + 20, tick_text(value, x_.step));
    }
    add(R"(<text class="soft" x="{}" y="{}" font-size="13" text-anchor="middle">{}</text>)",
        (left + right) / 2, bottom + 42, escape(chart_.x_label));
    add(R"svg(<text class="soft" transform="translate(24 {}) rotate(-90)" font-size="13" )svg"
        R"(text-anchor="middle">{}</text>)",
        (top + bottom) / 2, escape(chart_.y_label));
  }

  /// The points as an SVG path that is lifted over gaps.
  std::string path(const std::vector<ChartPoint>& points) const {
    std::string d;
    bool down = false;
    for (const ChartPoint& p : points) {
      if (!std::isfinite(p.x) || !std::isfinite(p.y)) {
        down = false;
        continue;
      }
      // A lone point is drawn by the round end of a line without length.
      d += down ? fmt::format("L{:.1f} {:.1f}", x_.at(p.x), y_.at(p.y))
                : fmt::format("M{:.1f} {:.1f}l0 0", x_.at(p.x), y_.at(p.y));
      down = true;
    }
    return d;
  }

  void stroke(std::size_t i, const std::vector<ChartPoint>& points, const char* style) {
    add(R"(<path class="s{}" d="{}" fill="none" stroke-linejoin="round" stroke-linecap="round" )"
        R"svg(clip-path="url(#field)" {}/>)svg",
        ink(i), path(thinned(points)), style);
  }

  void faint_line(std::size_t i) {
    const ChartSeries& series = chart_.series[i];
    if (series.smooth && !series.marked) stroke(i, series.points, R"(stroke-width="1" opacity="0.22")");
  }

  void line(std::size_t i) {
    const bool marked = chart_.series[i].marked;
    stroke(i, lines_[i], marked ? R"(stroke-width="1.5" stroke-dasharray="2 5")" : R"(stroke-width="2.5")");
    if (!marked) return;
    for (const ChartPoint& p : thinned(lines_[i]))
      if (std::isfinite(p.y))
        add(R"(<circle class="s{} hole" cx="{:.1f}" cy="{:.1f}" r="4" stroke-width="2"/>)", ink(i),
            x_.at(p.x), y_.at(p.y));
  }

  /// The last value of each curve beside its end, moved apart where they would overlap.
  void final_values() {
    struct Label {
      std::size_t series;
      double value, y;
    };
    std::vector<Label> labels;
    for (std::size_t i = 0; i < lines_.size(); ++i)
      if (const double value = last_value(lines_[i]); std::isfinite(value))
        labels.push_back({i, value, y_.at(value)});
    std::sort(labels.begin(), labels.end(), [](const Label& a, const Label& b) { return a.y < b.y; });
    constexpr double apart = 17;
    for (std::size_t i = 1; i < labels.size(); ++i)
      labels[i].y = std::max(labels[i].y, labels[i - 1].y + apart);
    double lowest = bottom;
    for (std::size_t i = labels.size(); i-- > 0; lowest = labels[i].y - apart)
      labels[i].y = std::min(labels[i].y, lowest);
    for (const Label& label : labels) {
      symbol(label.series, right + 14, 12, label.y);
      add(R"(<text class="t{}" x="{}" y="{:.1f}" font-size="13" font-weight="600">{:.3f}</text>)",
          ink(label.series), right + 34, label.y + 4.5, label.value);
    }
  }

  /// How a series is drawn, in small.
  void symbol(std::size_t i, double x, double length, double y) {
    const bool marked = chart_.series[i].marked;
    if (marked)
      add(R"(<circle class="s{} hole" cx="{}" cy="{:.1f}" r="4" stroke-width="2"/>)", ink(i), x + length / 2,
          y);
    else
      add(R"(<line class="s{0}" x1="{1}" y1="{3:.1f}" x2="{2}" y2="{3:.1f}" stroke-width="3"/>)", ink(i), x,
          x + length, y);
  }

  static double last_value(const std::vector<ChartPoint>& points) {
    const auto last =
        std::find_if(points.rbegin(), points.rend(), [](auto& p) { return std::isfinite(p.y); });
    return last == points.rend() ? std::numeric_limits<double>::quiet_NaN() : last->y;
  }

  void legend() {
    double x = 24;
    constexpr double y = 83, letter = 7.0;
    for (std::size_t i = 0; i < chart_.series.size(); ++i) {
      const ChartSeries& series = chart_.series[i];
      symbol(i, x, 22, y);
      add(R"(<text class="ink" x="{}" y="{}" font-size="13">{}</text>)", x + 30, y + 4.5,
          escape(series.name));
      x += 30 + letter * static_cast<double>(series.name.size()) + 26;
    }
  }

  const Chart& chart_;
  std::vector<std::vector<ChartPoint>> lines_;  // what is drawn boldly, a series each
  Axis x_{}, y_{};
  std::string out_;
};

}  // namespace

std::string to_svg(const Chart& chart) { return Drawing(chart).svg(); }

void write_chart(const std::filesystem::path& path, const Chart& chart) {
  std::filesystem::path aside = path;
  aside += ".new";
  io::OutputFile file(aside);
  file.write(to_svg(chart));
  file.close();
  std::error_code error;
  std::filesystem::rename(aside, path, error);
  if (error)
    throw StorageError(
        {.what = "The chart cannot be written", .where = path.string(), .why = error.message()});
}

std::vector<ChartSeries> loss_series(const std::filesystem::path& metrics, const std::string& name,
                                     int colour) {
  ChartSeries training{.name = name, .points = {}, .colour = colour};
  ChartSeries evaluation{
      .name = name + ", held-out", .points = {}, .smooth = false, .marked = true, .colour = colour};
  for (const io::Json& line : read_metrics(metrics)) {
    const double step = line["step"].get<double>();
    for (auto [key, series] : {std::pair{"loss", &training}, std::pair{"eval_loss", &evaluation}})
      if (const io::Json* found = line.find(key))
        series->points.push_back(
            {step, found->is_number() ? found->get<double>() : std::numeric_limits<double>::quiet_NaN()});
  }
  if (evaluation.points.empty()) return {training};
  return {training, evaluation};
}

}  // namespace parscale::program
