/// The picture of a run: well-formed, complete, small.
#include <cmath>
#include <common/chart.hpp>
#include <limits>

#include "given.hpp"

using namespace parscale;
using namespace parscale::program;

namespace {

/// Checks that tags nest, attributes are quoted, and text holds no bare & or <. Returns the number of
/// elements.
int elements_of(const std::string& xml) {
  std::vector<std::string> open;
  int count = 0;
  for (std::size_t at = 0; at < xml.size();) {
    if (xml[at] == '&') {
      const std::size_t end = xml.find(';', at);
      REQUIRE(end != xml.npos);
      REQUIRE(end - at <= 5);
    }
    if (xml[at] != '<') {
      ++at;
      continue;
    }
    const std::size_t end = xml.find('>', at);
    REQUIRE(end != xml.npos);
    const std::string tag = xml.substr(at + 1, end - at - 1);
    REQUIRE(tag.find('<') == tag.npos);
    REQUIRE(std::count(tag.begin(), tag.end(), '"') % 2 == 0);
    if (tag[0] == '/') {
      REQUIRE_FALSE(open.empty());
      REQUIRE(open.back() == tag.substr(1));
      open.pop_back();
    } else {
      ++count;
      if (tag.back() != '/') open.push_back(tag.substr(0, tag.find(' ')));
    }
    at = end + 1;
  }
  CHECK(open.empty());
  return count;
}

ChartSeries falling(const std::string& name, int n) {
  ChartSeries series{.name = name, .points = {}};
  for (int i = 1; i <= n; ++i) series.points.push_back({double(i), 2 + 3 * std::exp(-i / 50.0)});
  return series;
}

/// Every number after "M" and "L" in the paths stays finite.
bool has_bad_numbers(const std::string& svg) { return contains(svg, "nan") || contains(svg, "inf"); }

}  // namespace

TEST_CASE("A chart is well-formed and names its series, its axes and the last values") {
  const std::string svg =
      to_svg({.title = "a run", .subtitle = "sub", .series = {falling("P = 1", 300), falling("P = 4", 300)}});
  CHECK(elements_of(svg) > 20);
  for (const char* part :
       {"a run", "sub", ">P = 1<", ">P = 4<", ">step<", ">loss<", ">2.00", "class=\"s0\"", "class=\"s1\""})
    CHECK(contains(svg, part));
  CHECK_FALSE(has_bad_numbers(svg));
}

TEST_CASE("A chart serves light and dark readers") {
  CHECK(contains(to_svg({.title = "x", .series = {falling("a", 9)}}), "prefers-color-scheme:dark"));
}

TEST_CASE("Titles and names with the characters of XML are escaped") {
  const std::string svg = to_svg({.title = "a < b & \"c\"\x01", .series = {falling("<x>", 5)}});
  elements_of(svg);
  CHECK(contains(svg, "a &lt; b &amp; &quot;c&quot; "));
  CHECK(contains(svg, "&lt;x&gt;"));
}

TEST_CASE("A chart without points, with one, or with equal ones has no bad numbers") {
  for (const std::vector<ChartPoint>& points : {std::vector<ChartPoint>{},
                                                {{1, 2}},
                                                {{1, 2}, {2, 2}, {3, 2}},
                                                {{5, 1e-9}, {5, 1e-9}},
                                                {{0, 0}, {1, 1e12}}}) {
    const std::string svg = to_svg({.title = "x", .series = {{.name = "a", .points = points}}});
    elements_of(svg);
    CHECK_FALSE(has_bad_numbers(svg));
  }
}

TEST_CASE("Losses that are not finite leave a gap") {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const std::string svg = to_svg(
      {.title = "x",
       .series = {{.name = "a", .points = {{1, 3}, {2, nan}, {3, 2}, {4, inf}, {5, 1}}, .smooth = false}}});
  CHECK_FALSE(has_bad_numbers(svg));
  const std::size_t path = svg.find("<path class=\"s0\"");
  const std::string d = svg.substr(path, svg.find("/>", path) - path);
  CHECK(std::count(d.begin(), d.end(), 'M') == 3);
}

TEST_CASE("A long run gives a small picture in which a spike is still seen") {
  ChartSeries series = falling("a", 200'000);
  series.points[100'000].y = 4.9;
  const std::string svg = to_svg({.title = "x", .series = {series}});
  CHECK(svg.size() < 40'000);
  ChartSeries calm = falling("a", 200'000);
  CHECK(svg != to_svg({.title = "x", .series = {calm}}));
}

TEST_CASE("Training and evaluation losses are taken from the metrics") {
  const TemporaryFolder folder;
  const auto path = folder.file(
      "m.jsonl", "{\"step\":1,\"loss\":4.5}\n{\"step\":2,\"loss\":null}\n{\"step\":2,\"eval_loss\":4}\n");
  const auto series = loss_series(path, "P = 4", 1);
  REQUIRE(series.size() == 2);
  CHECK(series[0].name == "P = 4");
  REQUIRE(series[0].points.size() == 2);
  CHECK(std::isnan(series[0].points[1].y));
  CHECK(series[1].name == "P = 4, held-out");
  CHECK(series[1].points[0].y == 4);
  CHECK(series[1].colour == 1);
}

TEST_CASE("A chart is written, and a folder that is missing is a storage error") {
  const TemporaryFolder folder;
  write_chart(folder.path() / "loss.svg", {.title = "x", .series = {falling("a", 9)}});
  CHECK(std::filesystem::file_size(folder.path() / "loss.svg") > 1000);
  CHECK_THROWS_AS(write_chart(folder.path() / "none/loss.svg", {.title = "x"}), StorageError);
}
