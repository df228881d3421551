/// JSON from files that nobody vouches for: syntax errors with their line, and errors for what a lenient
/// parser lets through (duplicate keys, bottomless nesting).
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "file.hpp"

namespace parscale::io {

/// A JSON value. Objects keep the order of the file; looking up a key walks through the object, so iterate
/// over large ones (a vocabulary) instead of asking for key after key.
using Json = nlohmann::ordered_json;

namespace detail {

/// Walks over the text and leaves word of how far the parser has come, for the line in an error.
class WatchedIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  WatchedIterator(const char* at, const char** reached) : at_(at), reached_(reached) {}
  reference operator*() const { return *at_; }
  WatchedIterator& operator++() {
    *reached_ = ++at_;
    return *this;
  }
  WatchedIterator operator++(int) {
    WatchedIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const WatchedIterator& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  const char** reached_;
};

/// Receives the parser's events and builds the value. The parser keeps its own stack, so hostile nesting
/// meets the limit here and never the end of the machine's stack.
class JsonBuilder {
 public:
  static constexpr std::size_t deepest = 64;

  JsonBuilder(std::string_view text, std::string where)
      : text_(text), reached_(text.data()), where_(std::move(where)) {}

  Json build() {
    const char* end = text_.data() + text_.size();
    auto input = nlohmann::detail::input_adapter(WatchedIterator(text_.data(), &reached_),
                                                 WatchedIterator(end, &reached_));
    // What Json::sax_parse does for text; that one would compile the readers of five binary formats too.
    nlohmann::detail::parser<Json, decltype(input)>(std::move(input)).sax_parse(this);
    return std::move(root_);
  }

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(std::int64_t value) { return add(value); }
  bool number_unsigned(std::uint64_t value) { return add(value); }
  bool number_float(double value, const std::string&) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(Json::binary_t& value) { return add(std::move(value)); }
  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    if (!open_.back().keys.insert(name).second)
      fail("A JSON object has the same key twice", "\"" + name + "\"");
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) {
    fail("This is not valid JSON", words_of(error));
  }

 private:
  struct Container {
    Json* value;
    std::unordered_set<std::string> keys = {};
  };

  /// Puts a value where the text stands. Appending to the object itself keeps a vocabulary of 150,000 entries
  /// linear; its own insertion would search for the key each time, which key() has done already.
  template <class Value>
  bool add(Value&& value) {
    place(Json(std::forward<Value>(value)));
    return true;
  }
  Json& place(Json value) {
    if (open_.empty()) return root_ = std::move(value);
    Json& parent = *open_.back().value;
    if (parent.is_array()) return parent.emplace_back(std::move(value));
    auto& members = parent.get_ref<Json::object_t&>();
    members.push_back({std::move(key_), std::move(value)});
    return members.back().second;
  }

  bool open(Json empty) {
    if (open_.size() == deepest)
      fail("The JSON text is nested too deeply", "more than " + std::to_string(deepest) + " levels");
    open_.push_back({&place(std::move(empty))});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  [[noreturn]] void fail(std::string what, std::string why) const {
    const auto line = 1 + std::count(text_.data(), reached_, '\n');
    throw InputError(
        {.what = std::move(what), .where = where_ + ", line " + std::to_string(line), .why = std::move(why)});
  }

  /// The parser's words without its own error number and position, cut where they quote half the file.
  static std::string words_of(const nlohmann::detail::exception& error) {
    std::string_view words = error.what();
    if (const auto id = words.find("] "); id != words.npos) words.remove_prefix(id + 2);
    if (const auto position = words.find(": ");
        words.substr(0, 11) == "parse error" && position != words.npos)
      words.remove_prefix(position + 2);
    std::string out;
    for (char c : words.substr(0, 200)) out += c >= ' ' && c <= '~' ? c : '?';
    return words.size() > 200 ? out + "..." : out;
  }

  std::string_view text_;
  const char* reached_;
  std::string where_;
  Json root_;
  std::vector<Container> open_;
  std::string key_;
};

}  // namespace detail

namespace detail {

inline void show_text(std::string_view value, std::string& out) {
  out += '"';
  for (char c : value) out += c >= ' ' && c <= '~' ? c : '?';
  out += '"';
}

inline void show_number(const Json& value, std::string& out) {
  std::array<char, 32> digits{};
  char* const end = digits.data() + digits.size();
  const auto written = value.is_number_float() ? std::to_chars(digits.data(), end, value.get<double>())
                       : value.is_number_unsigned()
                           ? std::to_chars(digits.data(), end, value.get<std::uint64_t>())
                           : std::to_chars(digits.data(), end, value.get<std::int64_t>());
  out.append(digits.data(), written.ptr);
}

/// Appends the value, at least until `out` is longer than `enough`.
inline void show(const Json& value, std::size_t enough, std::string& out) {
  if (value.is_structured()) {
    out += value.is_array() ? '[' : '{';
    const char* comma = "";
    for (auto member = value.begin(); member != value.end() && out.size() <= enough; ++member) {
      out += std::exchange(comma, ",");
      if (value.is_object()) {
        show_text(member.key(), out);
        out += ':';
      }
      show(*member, enough, out);
    }
    out += value.is_array() ? ']' : '}';
  } else if (value.is_string()) {
    show_text(value.get_ref<const std::string&>(), out);
  } else if (value.is_number()) {
    show_number(value, out);
  } else {
    out += value.is_null() ? "null" : value.get<bool>() ? "true" : "false";
  }
}

}  // namespace detail

/// Parses a whole text. `where` names it in errors (a path). Throws InputError with the line: broken syntax
/// or UTF-8, duplicate keys, numbers beyond double, more than 64 levels of nesting.
inline Json parse_json(std::string_view text, const std::string& where) {
  return detail::JsonBuilder(text, where).build();
}

/// Parses a file. Throws InputError, also when it cannot be read.
inline Json read_json(const std::filesystem::path& path) {
  return parse_json(read_file(path), path.string());
}

/// A value as a message shows it, on one line and shortened. Never throws for what a file holds, and compiles
/// faster than the full text.
inline std::string shown(const Json& value) {
  constexpr std::size_t longest = 80;
  std::string text;
  detail::show(value, longest, text);
  return text.size() <= longest ? text : text.substr(0, longest) + "...";
}

/// The text of a value: on one line, or over several with this indentation. Throws ConfigurationError when a
/// string in it is not valid UTF-8.
inline std::string to_text(const Json& value, int indentation = -1) {
  try {
    return value.dump(indentation);
  } catch (const Json::type_error& error) {
    throw ConfigurationError({.what = "JSON cannot hold text that is not valid UTF-8", .why = error.what()});
  }
}

/// Writes a value over several lines, as people like to read it, and makes it durable. Throws StorageError.
inline void write_json(const std::filesystem::path& path, const Json& value) {
  const std::string text = to_text(value, 2) + "\n";
  OutputFile file(path);
  file.write(text);
  file.close();
}

}  // namespace parscale::io
