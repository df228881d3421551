#include "options_types.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <parscale/core/error.hpp>
#include <sstream>

#include "numbers.hpp"

namespace parscale::program {
namespace {

constexpr double beyond = std::numeric_limits<double>::max();

/// "from 1 to 64", "at least 1", "above 0"
std::string range_words(const std::string& least, const std::string& most, bool above) {
  if (most.empty()) return (above ? "above " : "at least ") + least;
  return (above ? "above " + least + " and at most " : "from " + least + " to ") + most;
}

/// The number in a plain scalar; refuses everything else.
Number plain_number(const Given& given, const std::string& expected) {
  const YamlNode& node = given.node;
  if (node.kind != YamlNode::Kind::scalar || node.is_null()) given.refuse(expected);
  if (node.quoted) given.refuse(expected, "remove the quotes: a quoted value is a text");
  Number found = read_number(node.text);
  if (found.kind == Number::Kind::unclear)
    throw ConfigurationError({.what = given.key + " must be " + expected,
                              .where = node.where,
                              .why = describe(node) + " " + found.why,
                              .remedy = "write it as a plain decimal number"});
  if (found.kind == Number::Kind::text) given.refuse(expected);
  return found;
}

/// The whole number, or nothing: 1e3 and 1000.0 are whole, 1.5 is not.
std::optional<std::int64_t> whole(const Number& found) {
  constexpr double exact = 9007199254740992.0;  // 2^53: every whole double up to here is itself
  if (found.kind == Number::Kind::integer) return found.integer;
  if (std::floor(found.real) != found.real || std::abs(found.real) > exact) return std::nullopt;
  return static_cast<std::int64_t>(found.real);
}

std::int64_t read_integer(const Given& given, std::int64_t least, std::int64_t most,
                          const std::string& range) {
  const std::string expected = "a whole number " + range;
  const auto value = whole(plain_number(given, expected));
  if (value && *value > most) given.refuse("a whole number, at most " + std::to_string(most));
  if (!value || *value < least) given.refuse(expected);
  return *value;
}

Type<double> real(double least, double most, bool above) {
  const std::string range = range_words(write_number(least), most == beyond ? "" : write_number(most), above);
  return {.name = "number " + range,
          .read =
              [=](const Given& given) {
                const std::string expected = "a number " + range;
                const Number found = plain_number(given, expected);
                const double value =
                    found.kind == Number::Kind::integer ? static_cast<double>(found.integer) : found.real;
                if (value < least || value > most || (above && value == least)) given.refuse(expected);
                return value;
              },
          .print = write_number};
}

/// Number of letters to insert, delete, replace or swap with their neighbour to get from one to the other.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = std::exchange(last, row);
  }
  return last[b.size()];
}

/// The words between commas, without spaces around them; empty ones are left out.
std::vector<std::string> split_by_comma(const std::string& words) {
  std::vector<std::string> out;
  std::istringstream stream(words);
  for (std::string word; std::getline(stream, word, ',');) {
    word.erase(0, word.find_first_not_of(' '));
    word.erase(word.find_last_not_of(' ') + 1);
    if (!word.empty()) out.push_back(word);
  }
  return out;
}

bool is_word_of_yaml(const std::string& value) {
  static const std::vector<std::string> words = {"null",  "Null",  "NULL",  "None", "true", "True", "TRUE",
                                                 "false", "False", "FALSE", "yes",  "no",   "on",   "off"};
  return std::find(words.begin(), words.end(), value) != words.end();
}

}  // namespace

void Given::refuse(const std::string& expected, const std::string& remedy) const {
  throw ConfigurationError({.what = key + " must be " + expected,
                            .where = node.where,
                            .why = "the value is " + describe(node),
                            .remedy = remedy});
}

Type<bool> boolean() {
  return {.name = "true | false",
          .read =
              [](const Given& given) {
                const std::string& word = given.node.text;
                if (given.node.kind == YamlNode::Kind::scalar && !given.node.quoted) {
                  for (const char* yes : {"true", "True", "TRUE", "yes", "Yes", "on", "On"})
                    if (word == yes) return true;
                  for (const char* no : {"false", "False", "FALSE", "no", "No", "off", "Off"})
                    if (word == no) return false;
                }
                given.refuse("true or false",
                             given.node.quoted ? "remove the quotes: a quoted value is a text" : "");
              },
          .print = [](const bool& value) -> std::string { return value ? "true" : "false"; },
          .is_flag = true};
}

Type<std::string> text() {
  return {
      .name = "text",
      .read =
          [](const Given& given) {
            if (given.node.kind != YamlNode::Kind::scalar || given.node.is_null() || given.node.text.empty())
              given.refuse("a text");
            return given.node.text;
          },
      .print = print_text,
      .verbatim = true};
}

Type<io::Json> anything() {
  return {.name = "any value",
          .read = [](const Given& given) { return to_json(given.node); },
          .print = [](const io::Json& value) { return value.dump(); }};
}

Type<ResumeFrom> resume_point() {
  return {.name = "true | false | folder",
          .read = [](const Given& given) -> ResumeFrom {
            const YamlNode& node = given.node;
            if (node.is_null()) return {};
            if (node.kind != YamlNode::Kind::scalar || node.text.empty())
              given.refuse("true, false or the folder of a checkpoint");
            if (!node.quoted && (node.text == "true" || node.text == "True")) return {.latest = true};
            if (!node.quoted && (node.text == "false" || node.text == "False")) return {};
            return {.checkpoint = node.text};
          },
          .print = [](const ResumeFrom& value) -> std::string {
            if (!value.checkpoint.empty()) return print_text(value.checkpoint.string());
            return value.latest ? "true" : "false";
          },
          .verbatim = true,
          .is_flag = true};
}

Type<std::vector<std::string>> names() {
  const Type<std::vector<std::string>> list = list_of(text());
  return {.name = "names by comma, or a list",
          .read =
              [list](const Given& given) {
                const YamlNode& node = given.node;
                if (node.is_null()) return std::vector<std::string>{};
                if (node.kind != YamlNode::Kind::scalar) return list.read(given);
                if (node.text.starts_with('[')) {
                  YamlNode parsed = parse_yaml(node.text, {.name = node.where, .has_lines = false});
                  return list.read({given.key, parsed});
                }
                return split_by_comma(node.text);
              },
          .print = list.print,
          .verbatim = true};
}

Type<std::int64_t> integer(std::int64_t least, std::int64_t most) {
  const std::string range =
      range_words(std::to_string(least), most == largest_count ? "" : std::to_string(most), false);
  return {.name = "integer " + range,
          .read = [=](const Given& given) { return read_integer(given, least, most, range); },
          .print = [](const std::int64_t& value) { return std::to_string(value); }};
}

Type<int> small_integer(int least, int most) {
  const Type<std::int64_t> wide = integer(least, most);
  return {.name = wide.name,
          .read = [=](const Given& given) { return static_cast<int>(wide.read(given)); },
          .print = [](const int& value) { return std::to_string(value); }};
}

Type<double> number(double least, double most) { return real(least, most, false); }
Type<double> number_above(double least, double most) { return real(least, most, true); }

std::string print_text(const std::string& value) {
  const auto safe = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_-./+=").find(c) != std::string_view::npos;
  };
  const bool starts_safely = !value.empty() && value[0] != '-' && value[0] != '=' && value[0] != '+';
  if (starts_safely && std::all_of(value.begin(), value.end(), safe) && !is_word_of_yaml(value) &&
      read_number(value).kind == Number::Kind::text)
    return value;
  return io::Json(value).dump();
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t least = 3 + word.size() / 4;
  for (const std::string& candidate : candidates)
    if (const std::size_t distance = edit_distance(word, candidate); distance < least) {
      least = distance;
      best = candidate;
    }
  return best;
}

std::size_t read_word(const Given& given, const std::vector<std::string>& words) {
  const YamlNode& node = given.node;
  const auto found = std::find(words.begin(), words.end(), node.text);
  if (node.kind == YamlNode::Kind::scalar && found != words.end())
    return static_cast<std::size_t>(found - words.begin());
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : ", ") + word;
  const std::string near = nearest(node.text, words);
  given.refuse("one of " + all, near.empty() ? "" : "did you mean " + near + "?");
}

}  // namespace parscale::program
