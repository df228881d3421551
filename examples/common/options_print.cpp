/// Options for people: --help and the effective configuration, both derived from the table of keys.

#include <fmt/format.h>

#include "options.hpp"
#include "options_table.hpp"

namespace parscale::program {
namespace {

constexpr std::size_t width = 100;

/// Names one after another, wrapped and indented.
std::string wrapped(const std::vector<std::string>& names) {
  std::string out, line;
  for (const std::string& name : names) {
    if (line.size() + name.size() + 4 > width) out += "  " + std::exchange(line, "") + "\n";
    line += (line.empty() ? "" : " ") + name;
  }
  return out + "  " + line + "\n";
}

std::vector<std::string> names_with(Verdict verdict) {
  std::vector<std::string> names;
  for (const Key& key : option_keys())
    if (key.verdict == verdict) names.push_back(key.name);
  return names;
}

/// The place of a value as a comment: what a user typed may hold line ends.
std::string comment(std::string where) {
  for (char& c : where) c = static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  return where;
}

std::string supported_keys() {
  const Options defaults;
  std::string out, section;
  for (const Key& key : option_keys()) {
    if (key.verdict != Verdict::supported) continue;
    if (key.section != section) out += fmt::format("\nSection {}:\n", section = key.section);
    out += fmt::format("  {:<28} {}\n", key.name, key.help);
    out += fmt::format("  {:<28}   {}; default {}\n", "", key.type, key.print(defaults));
  }
  return out;
}

std::string mapped_keys() {
  std::string out;
  for (const Key& key : option_keys())
    if (key.verdict == Verdict::mapped) out += fmt::format("  {:<28} {}\n", key.name, key.help);
  return out;
}

}  // namespace

std::string options_help() {
  return "Options are section.key=value, --section.key=value or --section.key value. They outweigh the YAML "
         "file\n"
         "named by --config FILE, which outweighs the one named by $CONFIG_FILE. Values are written as in "
         "YAML or\n"
         "as Python prints them.\n" +
         supported_keys() +
         "\nSection model: the keys of a Hugging Face config.json, to build a model from scratch.\n"
         "\nUnderstood as Hugging Face's TrainingArguments mean them, below training:\n" +
         mapped_keys() + "\nAccepted with a note, for they change nothing here:\n" +
         wrapped(names_with(Verdict::no_effect)) + "\nRefused unless they are off:\n" +
         wrapped(names_with(Verdict::refused));
}

std::string to_yaml(const Options& options, bool only_given) {
  std::string out, section;
  for (const Key& key : option_keys()) {
    const bool replaced = options.model && key.name == "base_model";
    if (key.verdict != Verdict::supported || replaced) continue;
    const auto origin = options.given.find(key.full_name());
    const bool given = origin != options.given.end();
    if (only_given && !given) continue;
    if (key.section != section) out += fmt::format("{}:\n", section = key.section);
    const std::string line = fmt::format("  {}: {}", key.name, key.print(options));
    out += given ? fmt::format("{:<50} # {}\n", line, comment(origin->second.where)) : line + "\n";
  }
  // JSON is YAML, and keeps the types of values.
  if (options.model) {
    out += "model:\n";
    for (const auto& [name, value] : options.model->members())
      out += fmt::format("  {}: {}\n", print_text(name), value.dump());
  }
  return out;
}

}  // namespace parscale::program
