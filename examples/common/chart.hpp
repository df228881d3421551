/// loss.svg: one or several curves over the steps of a run, as a picture that stands by itself.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace parscale::program {

struct ChartPoint {
  double x = 0;
  double y = 0;
};

/// One named curve. Points that are not finite leave a gap.
struct ChartSeries {
  std::string name;
  std::vector<ChartPoint> points;  ///< x ascending
  bool smooth = true;              ///< draw a running mean, and what was measured faintly behind it
  bool marked = false;  ///< draw each point as a dot on a thin line: few measurements, as evaluations are
  int colour = -1;      ///< place in the palette; -1: the series' own place in the chart
};

struct Chart {
  std::string title;
  std::string subtitle = {};
  std::string x_label = "step";
  std::string y_label = "loss";
  std::vector<ChartSeries> series = {};
};

/// The picture as SVG, in light and dark colours as the reader prefers.
std::string to_svg(const Chart& chart);

/// Writes it in one rename. Throws StorageError.
void write_chart(const std::filesystem::path& path, const Chart& chart);

/// Training and evaluation loss of a metrics.jsonl as two series of one colour: `name`, and `name, held-out`
/// when there are evaluations (keys `loss` and `eval_loss`).
std::vector<ChartSeries> loss_series(const std::filesystem::path& metrics, const std::string& name,
                                     int colour = 0);

}  // namespace parscale::program
