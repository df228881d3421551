/// A JSON value as text: whole for files, or shortened for messages.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <string_view>

#include "json_value.hpp"
#include "unicode.hpp"

namespace parscale::io {

namespace detail {

/// Appends values to a text; stops early once it is longer than `enough`.
class JsonWriter {
 public:
  JsonWriter(std::string& out, int indentation, std::size_t enough = std::string::npos)
      : out_(out), indentation_(indentation), enough_(enough) {}

  void write(const Json& value) {
    if (value.is_array()) {
      list('[', value, ']', [this](const Json& item) { write(item); });
    } else if (value.is_object()) {
      list('{', value.members(), '}', [this](const auto& member) {
        quote(member.first);
        out_ += indentation_ < 0 ? ":" : ": ";
        write(member.second);
      });
    } else if (value.is_string()) {
      quote(value.text());
    } else if (value.is_number()) {
      number(value);
    } else {
      out_ += value.is_null() ? "null" : value.get<bool>() ? "true" : "false";
    }
  }

  /// Whether bytes that are not UTF-8 had to be replaced.
  bool repaired() const { return repaired_; }

 private:
  void list(char open, const auto& items, char close, auto&& item) {
    out_ += open;
    depth_ += indentation_;
    bool first = true;
    for (const auto& i : items) {
      if (out_.size() > enough_) break;
      if (!first) out_ += ',';
      first = false;
      new_line();
      item(i);
    }
    depth_ -= indentation_;
    if (!first) new_line();
    out_ += close;
  }

  void new_line() {
    if (indentation_ < 0) return;
    out_ += '\n';
    out_.append(static_cast<std::size_t>(depth_), ' ');
  }

  void quote(std::string_view text) {
    out_ += '"';
    while (!text.empty() && out_.size() <= enough_) {
      const Utf8Step step = utf8_step(text);
      if (step.length > 1 && step.kind == Utf8Step::Kind::character)
        out_ += text.substr(0, step.length);
      else if (step.kind == Utf8Step::Kind::character)
        ascii(text[0]);
      else
        repaired_ = true, append_utf8(0xFFFD, out_);
      text.remove_prefix(step.length);
    }
    out_ += '"';
  }

  void ascii(char c) {
    constexpr std::string_view special = "\"\\\b\f\n\r\t", escapes = "\"\\bfnrt", digits = "0123456789abcdef";
    if (const auto i = special.find(c); i != special.npos) {
      out_ += {'\\', escapes[i]};
    } else if (c < ' ') {
      out_ += {'\\', 'u', '0', '0', digits[static_cast<unsigned char>(c) >> 4], digits[c & 15]};
    } else {
      out_ += c;
    }
  }

  void number(const Json& value) {
    if (!value.is_number_float()) {
      out_ += value.is_number_unsigned() ? std::to_string(value.get<std::uint64_t>())
                                         : std::to_string(value.get<std::int64_t>());
      return;
    }
    const double real = value.get<double>();
    if (!std::isfinite(real)) {
      out_ += "null";
      return;
    }
    // As Python prints them: 0.0001, 1e-05, 1000000.0, 1e+16.
    const double size = std::abs(real);
    const bool fixed = size == 0 || (size >= 1e-4 && size < 1e16);
    std::array<char, 64> digits{};
    const auto written = std::to_chars(digits.data(), digits.data() + digits.size(), real,
                                       fixed ? std::chars_format::fixed : std::chars_format::scientific);
    const std::string_view text(digits.data(), written.ptr);
    out_ += text;
    if (fixed && text.find('.') == text.npos) out_ += ".0";
  }

  std::string& out_;
  int indentation_;
  std::size_t enough_;
  int depth_ = 0;
  bool repaired_ = false;
};

}  // namespace detail

inline std::string Json::dump(int indentation) const {
  std::string text;
  detail::JsonWriter(text, indentation).write(*this);
  return text;
}

/// A value as a message shows it: on one line, in ASCII, shortened.
inline std::string shown(const Json& value) {
  constexpr std::size_t longest = 80;
  std::string text;
  detail::JsonWriter(text, -1, longest).write(value);
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return text.size() <= longest ? text : text.substr(0, longest) + "...";
}

/// The text of a value as dump() has it. Throws ConfigurationError when a text in the value is not UTF-8.
inline std::string to_text(const Json& value, int indentation = -1) {
  std::string text;
  detail::JsonWriter writer(text, indentation);
  writer.write(value);
  if (writer.repaired())
    throw ConfigurationError({.what = "JSON cannot hold text that is not valid UTF-8", .why = shown(value)});
  return text;
}

}  // namespace parscale::io
