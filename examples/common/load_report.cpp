#include "load_report.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "console.hpp"

namespace parscale::program {
namespace {

constexpr std::string_view layers = "model.layers.";

/// "model.layers.3.mlp.x" becomes {"model.layers.", 3, ".mlp.x"}; other names have no number.
struct Name {
  std::string before;
  int layer = -1;
  std::string after;
};

Name taken_apart(const std::string& name) {
  if (!name.starts_with(layers)) return {name, -1, ""};
  const std::size_t dot = name.find('.', layers.size());
  return {std::string(layers), std::stoi(name.substr(layers.size(), dot - layers.size())), name.substr(dot)};
}

/// "0...27", or "0, 6, 12".
std::string written(const std::vector<int>& numbers) {
  const bool run =
      numbers.size() > 2 && numbers.back() - numbers.front() + 1 == static_cast<int>(numbers.size());
  return run ? fmt::format("{}...{}", numbers.front(), numbers.back())
             : fmt::format("{}", fmt::join(numbers, ", "));
}

/// Names with the same text around their layer's number and the same description, in order of appearance.
std::vector<std::string> grouped(const std::vector<std::pair<std::string, std::string>>& names) {
  struct Group {
    Name name;
    std::string description;
    std::vector<int> layers;
  };
  std::vector<Group> groups;
  for (const auto& one : names) {
    const Name name = taken_apart(one.first);
    const std::string& description = one.second;
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
      return g.name.before == name.before && g.name.after == name.after && g.description == description;
    });
    Group& group = same != groups.end() ? *same : groups.emplace_back(Group{name, description, {}});
    if (name.layer >= 0) group.layers.push_back(name.layer);
  }
  std::vector<std::string> lines;
  for (const Group& group : groups)
    lines.push_back(group.name.before + (group.layers.empty() ? "" : written(group.layers)) +
                    group.name.after + group.description);
  return lines;
}

}  // namespace

std::vector<std::string> filled_lines(const LoadReport& report) {
  std::vector<std::pair<std::string, std::string>> names;
  for (const auto& filled : report.filled)
    names.emplace_back(filled.name, fmt::format(" {}: {}", io::to_string(filled.extent), filled.how));
  return grouped(names);
}

std::vector<std::string> unused_lines(const LoadReport& report) {
  std::vector<std::pair<std::string, std::string>> names;
  for (const auto& name : report.unused) names.emplace_back(name, "");
  return grouped(names);
}

void print_load_report(const LoadReport& report) {
  const auto filled = filled_lines(report), unused = unused_lines(report);
  if (!filled.empty())
    print_note(
        fmt::format("not in the checkpoint, and filled; training has yet to find their values:\n    {}",
                    fmt::join(filled, "\n    ")));
  if (!unused.empty())
    print_warning(fmt::format(
        "in the checkpoint, and not used:\n    {}\n  try:   check that config.json belongs to these "
        "weights: parscale_n, enable_cross_attn, tie_word_embeddings",
        fmt::join(unused, "\n    ")));
}

}  // namespace parscale::program
