// parscale-compare: several runs side by side: a table, and their curves in one picture.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>

#include "common/chart.hpp"
#include "common/console.hpp"
#include "common/metrics.hpp"
#include "common/progress.hpp"

namespace parscale::program {
namespace {

struct CompareCommand {
  std::vector<std::string> runs;
  std::string chart, title = "Training loss";
};

CompareCommand parse(const std::vector<std::string>& words) {
  CompareCommand c;
  CLI::App app("Compares training runs by their metrics.jsonl.", "parscale-compare");
  app.add_option("runs", c.runs, "NAME=FOLDER or FOLDER, the output folders of parscale-train")->required();
  app.add_option("--chart", c.chart, "write the runs' curves to this .svg file");
  app.add_option("--title", c.title, "of the picture")->capture_default_str();
  app.footer("Example:\n  parscale-compare \"P = 1=runs/p1\" \"P = 4=runs/p4\" --chart loss.svg");
  parse_command_line(app, words);
  return c;
}

/// What a run came to.
struct Summary {
  std::string name;
  std::filesystem::path metrics;
  Index steps = 0, tokens = 0;
  double loss = 0, held_out = std::nan("");  ///< mean of the last tenth of the steps; the last evaluation
  double tokens_per_second = 0;              ///< median over the steps
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Summary summary_of(const std::string& word) {
  Summary s;
  const std::size_t split = word.rfind('=');
  const std::filesystem::path folder = split == std::string::npos ? word : word.substr(split + 1);
  s.name = split == std::string::npos ? folder.filename().string() : word.substr(0, split);
  s.metrics = folder / "metrics.jsonl";
  std::vector<double> losses, rates;
  for (const io::Json& line : read_metrics(s.metrics)) {
    if (line.contains("eval_loss") && line["eval_loss"].is_number())
      s.held_out = line["eval_loss"].get<double>();
    if (!line.contains("loss") || !line["loss"].is_number()) continue;
    losses.push_back(line["loss"].get<double>());
    s.steps = line.value("step", s.steps);
    s.tokens = line.value("tokens", s.tokens);
    if (const double rate = line.value("tokens_per_second", 0.0); rate > 0) rates.push_back(rate);
  }
  if (losses.empty())
    throw InputError({.what = "The run has not made a step yet", .where = s.metrics.string()});
  const std::size_t last = std::max<std::size_t>(1, losses.size() / 10);
  for (std::size_t i = losses.size() - last; i < losses.size(); ++i)
    s.loss += losses[i] / static_cast<double>(last);
  s.tokens_per_second = median(rates);
  return s;
}

void print_table(const std::vector<Summary>& runs) {
  std::size_t width = 3;
  for (const Summary& s : runs) width = std::max(width, s.name.size());
  std::string table = fmt::format("{:<{}}  {:>6}  {:>8}  {:>10}  {:>13}  {:>10}  {:>8}\n", "run", width,
                                  "steps", "tokens", "train loss", "held-out loss", "perplexity", "tokens/s");
  for (const Summary& s : runs)
    table += fmt::format("{:<{}}  {:>6}  {:>8}  {:>10.4f}  {:>13.4f}  {:>10.2f}  {:>8.0f}\n", s.name, width,
                         s.steps, write_count(static_cast<double>(s.tokens)), s.loss, s.held_out,
                         std::exp(s.held_out), s.tokens_per_second);
  print_quietly(stdout, table);
}

int compare(const std::vector<std::string>& words) {
  const CompareCommand c = parse(words);
  std::vector<Summary> runs;
  for (const std::string& word : c.runs) runs.push_back(summary_of(word));
  print_table(runs);
  if (c.chart.empty()) return 0;
  Chart chart{.title = c.title};
  for (std::size_t i = 0; i < runs.size(); ++i)
    for (ChartSeries& series : loss_series(runs[i].metrics, runs[i].name, static_cast<int>(i)))
      chart.series.push_back(std::move(series));
  write_chart(c.chart, chart);
  print_quietly(stdout, "the curves are in " + c.chart + "\n");
  return 0;
}

}  // namespace
}  // namespace parscale::program

int main(int argc, char** argv) {
  return parscale::program::run_main(argc, argv, {.name = "parscale-compare"}, parscale::program::compare);
}
