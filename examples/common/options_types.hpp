/// The types that a key can have: how a value is checked and read, printed, and named in --help.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "options.hpp"
#include "yaml.hpp"

namespace parscale::program {

/// A value that was given to a key.
struct Given {
  const std::string& key;
  const YamlNode& node;

  /// Throws ConfigurationError: the key must be `expected`, the node says something else.
  [[noreturn]] void refuse(const std::string& expected, const std::string& remedy = "") const;
};

/// A type: its name for people, its reader (throws through Given::refuse), its printer (YAML).
template <class T>
struct Type {
  std::string name;
  std::function<T(const Given&)> read;
  std::function<std::string(const T&)> print;
  bool verbatim = false;  ///< a word of the command line is taken as it stands, not parsed as YAML
  bool is_flag = false;   ///< `--key` alone means true
};

/// Counts stay below this, so that products of two of them fit into 64 bits.
constexpr std::int64_t largest_count = std::int64_t{1} << 31;

Type<bool> boolean();
Type<std::string> text();
Type<io::Json> anything();
Type<ResumeFrom> resume_point();
/// Names separated by commas, or a list of names. Null is no name.
Type<std::vector<std::string>> names();
/// Whole numbers, also written 1e3 or 1000.0.
Type<std::int64_t> integer(std::int64_t least, std::int64_t most = largest_count);
Type<int> small_integer(int least, int most);
/// Finite numbers from `least` to `most`; `above` excludes `least` itself.
Type<double> number(double least, double most = std::numeric_limits<double>::max());
Type<double> number_above(double least, double most = std::numeric_limits<double>::max());

/// How a text is printed in YAML: plain where that is safe, else in double quotes.
std::string print_text(const std::string& value);
/// " Did you mean ...?" material: the candidate nearest to `word`, or nothing when none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

/// One of several words.
template <class E>
Type<E> choice(std::vector<std::pair<std::string, E>> words);
/// T, or null.
template <class T>
Type<std::optional<T>> or_null(Type<T> type);
/// A list of T in brackets.
template <class T>
Type<std::vector<T>> list_of(Type<T> type);

/// The word of a choice, or a refusal that names them all.
std::size_t read_word(const Given& given, const std::vector<std::string>& words);

template <class E>
Type<E> choice(std::vector<std::pair<std::string, E>> words) {
  std::vector<std::string> names_of_words;
  std::string name;
  for (const auto& [word, value] : words) {
    names_of_words.push_back(word);
    name += (name.empty() ? "" : " | ") + word;
  }
  return {.name = name,
          .read = [=](const Given& given) { return words[read_word(given, names_of_words)].second; },
          .print =
              [words](const E& value) {
                for (const auto& [word, meaning] : words)
                  if (meaning == value) return print_text(word);
                return std::string("null");
              },
          .verbatim = true};
}

template <class T>
Type<std::optional<T>> or_null(Type<T> type) {
  return {.name = type.name + " | null",
          .read = [type](const Given& given) -> std::optional<T> {
            if (given.node.is_null()) return std::nullopt;
            return type.read(given);
          },
          .print = [type](const std::optional<T>& value) { return value ? type.print(*value) : "null"; },
          .verbatim = type.verbatim,
          .is_flag = type.is_flag};
}

template <class T>
Type<std::vector<T>> list_of(Type<T> type) {
  const std::string name = "[" + type.name + ", ...]";
  return {.name = name,
          .read =
              [=](const Given& given) {
                if (given.node.kind != YamlNode::Kind::sequence)
                  given.refuse("a list like [0, 6, 12]", "quote a list that has spaces: 'key=[0, 6, 12]'");
                std::vector<T> out;
                for (const YamlNode& item : given.node.items) out.push_back(type.read({given.key, item}));
                return out;
              },
          .print =
              [type](const std::vector<T>& values) {
                std::string out;
                for (const T& value : values) out += (out.empty() ? "" : ", ") + type.print(value);
                return "[" + out + "]";
              }};
}

}  // namespace parscale::program
