/// JSON text from files that nobody vouches for: every error has its line, and what a lenient parser lets
/// through (duplicate keys, bottomless nesting) is one.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "json_value.hpp"
#include "unicode.hpp"

namespace parscale::io {

namespace detail {

class JsonParser {
 public:
  static constexpr int deepest = 64;

  JsonParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Json whole() {
    Json json = value();
    skip_space();
    if (at_ < text_.size()) fail_syntax("something follows the value: ", found());
    return json;
  }

 private:
  Json value() {
    switch (next()) {
      case '{':
        return object();
      case '[':
        return array();
      case '"':
        return string();
      case 't':
        return word("true"), true;
      case 'f':
        return word("false"), false;
      case 'n':
        return word("null"), nullptr;
      default:
        return number();
    }
  }

  Json object() {
    enter();
    Json json = Json::object();
    Json::Object& members = json.members();
    std::vector<std::size_t> places;
    while (more('}', places.empty())) {
      if (next() != '"') fail_syntax("a key in quotes is expected, not ", found());
      places.push_back(at_);
      std::string key = string();
      expect(':');
      members.emplace_back(std::move(key), value());
    }
    refuse_duplicates(members, places);
    --depth_;
    return json;
  }

  Json array() {
    enter();
    Json json = Json::array();
    while (more(']', json.empty())) json.push_back(value());
    --depth_;
    return json;
  }

  /// Past the opening bracket.
  void enter() {
    if (++depth_ > deepest)
      fail("The JSON text is nested too deeply", concat({"more than ", deepest, " levels"}));
    ++at_;
  }

  /// Whether another item follows; past the comma, or past the closing bracket.
  bool more(char close, bool first) {
    if (next() == close) return ++at_, false;
    if (!first) expect(',');
    return true;
  }

  void refuse_duplicates(const Json::Object& members, const std::vector<std::size_t>& places) {
    std::set<std::string_view> names;
    for (std::size_t i = 0; i < members.size(); ++i) {
      if (names.insert(members[i].first).second) continue;
      at_ = places[i];
      fail("A JSON object has the same key twice", shown_key(members[i].first));
    }
  }

  std::string string() {
    ++at_;
    std::string out;
    while (true) {
      if (at_ >= text_.size()) fail_syntax("unexpected end of input in a text");
      const char c = text_[at_];
      if (c == '"') break;
      if (c == '\\') {
        escape(out);
      } else if (c >= 0 && c < ' ') {
        fail_syntax("a control character stands in a text; it must be written as \\u00..");
      } else {
        plain(out);
      }
    }
    ++at_;
    return out;
  }

  /// Characters that stand for themselves.
  void plain(std::string& out) {
    const std::size_t begin = at_;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"' || c == '\\' || (c >= 0 && c < ' ')) break;
      const Utf8Step step = utf8_step(text_.substr(at_));
      if (step.kind != Utf8Step::Kind::character) fail_syntax("ill-formed UTF-8");
      at_ += step.length;
    }
    out += text_.substr(begin, at_ - begin);
  }

  void escape(std::string& out) {
    constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    ++at_;
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    ++at_;
    if (c == 'u') {
      append_utf8(code_point(), out);
    } else if (const auto i = letters.find(c); i != letters.npos) {
      out += meant[i];
    } else {
      --at_;
      fail_syntax("there is no escape with ", found());
    }
  }

  /// After \u; characters beyond U+FFFF are written as two such halves.
  char32_t code_point() {
    const char32_t first = four_digits();
    if (first < 0xD800 || first > 0xDFFF) return first;
    const bool pair = first < 0xDC00 && text_.substr(at_, 2) == "\\u";
    if (pair) at_ += 2;
    const char32_t second = pair ? four_digits() : 0;
    if (second < 0xDC00 || second > 0xDFFF) fail_syntax("half of a surrogate pair stands alone");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }
  char32_t four_digits() {
    std::uint32_t code = 0;
    const std::string_view digits = text_.substr(std::min(at_, text_.size()), 4);
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() < 4 || read.ptr != digits.data() + 4) fail_syntax("\\u needs four hexadecimal digits");
    at_ += 4;
    return code;
  }

  Json number() {
    const std::size_t begin = at_;
    skip("-");
    if (skip("0") == 0 && digits() == 0) {
      at_ = begin;
      fail_syntax("a value is expected, not ", found());
    }
    const std::size_t integer = at_;
    if (skip(".") > 0 && digits() == 0) fail_syntax("digits must follow the point");
    if (skip("eE") > 0 && (skip("+-"), digits() == 0)) fail_syntax("digits must follow the exponent's e");
    const std::string_view text = text_.substr(begin, at_ - begin);
    if (at_ > integer) return real(text);
    return text[0] == '-' ? whole_number<std::int64_t>(text) : whole_number<std::uint64_t>(text);
  }

  /// One of these characters; says how many it passed.
  std::size_t skip(std::string_view any) {
    const bool there = at_ < text_.size() && any.find(text_[at_]) != any.npos;
    return at_ += there, there;
  }
  std::size_t digits() {
    const std::size_t begin = at_;
    while (skip("0123456789") > 0) continue;
    return at_ - begin;
  }

  template <class T>
  Json whole_number(std::string_view text) {
    T number = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
    return read.ec == std::errc() ? Json(number) : real(text);
  }

  Json real(std::string_view text) {
    double number = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
    if (read.ec == std::errc()) return number;
    if (is_large(text)) fail_syntax("number overflow: ", text.substr(0, 40));
    return text[0] == '-' ? -0.0 : 0.0;
  }

  /// Whether a number that double cannot hold is too large, not too small.
  static bool is_large(std::string_view text) {
    const std::size_t e = std::min(text.find_first_of("eE"), text.size());
    const std::string_view mantissa = text.substr(0, e);
    const std::size_t point = std::min(mantissa.find('.'), e), leading = mantissa.find_first_of("123456789");
    const bool below_one = e < text.size() && text[e + 1] == '-';
    std::int64_t exponent = 0;
    const std::string_view digits = text.substr(std::min(text.size(), text.find_first_of("0123456789", e)));
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), exponent);
    if (read.ec != std::errc()) exponent = digits.empty() ? 0 : std::numeric_limits<std::int32_t>::max();
    const auto magnitude = static_cast<std::int64_t>(point) - static_cast<std::int64_t>(leading);
    return magnitude + (below_one ? -exponent : exponent) > 0;
  }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos)
      ++at_;
  }
  /// The character after white space.
  char next() {
    skip_space();
    if (at_ == text_.size()) fail_syntax("unexpected end of input");
    return text_[at_];
  }
  void expect(char c) {
    if (next() != c) fail_syntax(concat({"'", std::string_view(&c, 1), "' is expected, not "}), found());
    ++at_;
  }
  void word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) fail_syntax("a value is expected, not ", found());
    at_ += word.size();
  }

  /// What stands here, for a message.
  std::string found() const {
    if (at_ >= text_.size()) return "the end of the input";
    const char c = text_[at_];
    return c > ' ' && c <= '~' ? concat({"'", text_.substr(at_, 1), "'"}) : concat({"a byte ", c & 0xFF});
  }
  static std::string shown_key(std::string_view key) {
    std::string out = "\"";
    for (char c : key.substr(0, 60)) out += c >= ' ' && c <= '~' ? c : '?';
    return out + (key.size() > 60 ? "..." : "\"");
  }

  [[noreturn]] void fail_syntax(std::string_view why, std::string_view found = {}) const {
    fail("This is not valid JSON", concat({why, found}));
  }
  [[noreturn]] void fail(const char* what, const std::string& why) const {
    const auto end = text_.begin() + static_cast<std::ptrdiff_t>(std::min(at_, text_.size()));
    const auto line = 1 + std::count(text_.begin(), end, '\n');
    throw InputError({.what = what, .where = concat({where_, ", line ", line}), .why = why});
  }

  std::string_view text_;
  const std::string& where_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace detail

/// Parses a whole text. `where` names it in errors (a path). Throws InputError with the line: broken syntax
/// or UTF-8, duplicate keys, numbers beyond double, more than 64 levels of nesting.
inline Json parse_json(std::string_view text, const std::string& where) {
  return detail::JsonParser(text, where).whole();
}

}  // namespace parscale::io
