/// Patterns of tokenizer files are written for the Oniguruma engine (Ruby's syntax); we search with PCRE2.
/// Most of the two languages is the same. This file rewrites what differs and refuses, by name, what it
/// cannot promise to match alike.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/error.hpp"

namespace parscale::io {

/// Whether a backslash in front of it only says that it stands for itself.
constexpr bool is_ascii_sign(char c) {
  const bool letter_or_digit = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  return c >= '!' && c <= '~' && !letter_or_digit;
}

/// One pass over a pattern, writing PCRE2's version of it.
class OnigurumaTranslator {
 public:
  OnigurumaTranslator(std::string_view pattern, std::string where) : in_(pattern), where_(std::move(where)) {}

  std::string translate() {
    while (at_ < in_.size()) translate_item();
    if (caseless_.size() != 1) refuse("a group that is not closed");
    return std::move(out_);
  }

 private:
  // Members of \s and \w as a class lists them. PCRE2's own \s has U+180E, its \w lacks marks; Oniguruma
  // counts the six small numbers of Latin-1 as word characters, and none of their kind elsewhere.
  static constexpr std::string_view white_space = "\\x{9}-\\x{D}\\x{85}\\p{Z}";
  static constexpr std::string_view word =
      "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";

  char peek(std::size_t ahead = 0) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }
  bool starts_with(std::string_view text) const { return in_.substr(at_, text.size()) == text; }
  void copy(std::size_t count) {
    out_ += in_.substr(at_, count);
    at_ += count;
  }
  void replace(std::size_t count, std::string_view by) {
    out_ += by;
    at_ += count;
  }

  static std::string lower_case(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return out;
  }

  void translate_item() {
    switch (peek()) {
      case '\\':
        return translate_escape(false);
      case '[':
        return translate_class();
      case '(':
        return open_group();
      case ')':
        return close_group();
      case '{':
        return translate_interval();
      default:
        return translate_literal();
    }
  }

  void open_group() {
    static constexpr std::string_view openings[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    const auto* known = std::find_if(std::begin(openings), std::end(openings),
                                     [this](std::string_view opening) { return starts_with(opening); });
    if (known == std::end(openings) && peek(1) == '?') refuse("the group " + std::string(in_.substr(at_, 4)));
    caseless_.push_back(caseless_.back() || starts_with("(?i:"));
    copy(known == std::end(openings) ? 1 : known->size());
  }

  void close_group() {
    if (caseless_.size() == 1) refuse("a ) without its (");
    caseless_.pop_back();
    copy(1);
  }

  /// {n}, {n,} and {n,m}. A suffix means lazy or possessive to PCRE2, but another repetition to Oniguruma.
  void translate_interval() {
    const std::size_t end = in_.find('}', at_);
    const std::string_view inside = end == in_.npos ? "" : in_.substr(at_ + 1, end - at_ - 1);
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    const bool starts_well =
        !inside.empty() && digit(inside[0]) && std::count(inside.begin(), inside.end(), ',') <= 1;
    if (!starts_well ||
        !std::all_of(inside.begin(), inside.end(), [&](char c) { return digit(c) || c == ','; }))
      refuse("a { that opens no plain repetition");
    copy(inside.size() + 2);
    if (peek() == '+' || peek() == '?') refuse("a repetition {...} followed by + or ?");
  }

  /// Oniguruma lets some letters match a pair or a ligature when case does not count (ss and U+00DF), PCRE2
  /// does not. Such letters are not found in pre-tokenisers; those of the contractions have single partners
  /// only.
  void translate_literal() {
    if (caseless_.back()) {
      if (static_cast<unsigned char>(peek()) >= 0x80) refuse("a letter beyond ASCII inside of (?i:...)");
      for (std::string_view pair : {"ss", "ff", "fi", "fl", "st"})
        if (lower_case(in_.substr(at_, 2)) == pair)
          refuse("the letters \"" + std::string(pair) + "\" inside of (?i:...)");
    }
    copy(1);
  }

  void translate_escape(bool in_class) {
    const char kind = peek(1);
    const auto set = [&](std::string_view members, bool negated) {
      if (in_class && negated) refuse(std::string("\\") + kind + " inside of a character class");
      replace(2, in_class ? std::string(members) : (negated ? "[^" : "[") + std::string(members) + "]");
    };
    switch (kind) {
      case 's':
      case 'S':
        return set(white_space, kind == 'S');
      case 'w':
      case 'W':
        return set(word, kind == 'W');
      case 'd':
        return replace(2, "\\p{Nd}");
      case 'D':
        return replace(2, "\\P{Nd}");
      case 'r':
      case 'n':
      case 't':
      case 'f':
        return copy(2);
      case 'u':
        return translate_code_point(2, 4);
      case 'x':
        if (peek(2) == '{') return translate_code_point(3, in_.find('}', at_) - at_ - 3);
        break;
      case 'p':
      case 'P':
        return translate_property();
      default:
        if (is_ascii_sign(kind)) return copy(2);
    }
    refuse("the escape " + std::string(in_.substr(at_, 2)));
  }

  /// \uHHHH and \x{H...}
  void translate_code_point(std::size_t prefix, std::size_t digits) {
    const std::string_view number = in_.substr(std::min(at_ + prefix, in_.size()), digits);
    const auto hexadecimal = [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; };
    if (number.empty() || number.size() != digits || digits > 6 ||
        !std::all_of(number.begin(), number.end(), hexadecimal))
      refuse("the escape " + std::string(in_.substr(at_, 2)) + " without its hexadecimal digits");
    if (caseless_.back()) refuse("an escaped code point inside of (?i:...)");
    replace(prefix + digits + (prefix == 3 ? 1 : 0), "\\x{" + std::string(number) + "}");
  }

  /// General categories are alike; a longer name is a script, for which PCRE2 would take script extensions.
  void translate_property() {
    const std::size_t end = in_.find('}', at_);
    if (peek(2) != '{' || end == in_.npos) refuse("a Unicode property without braces");
    std::string_view name = in_.substr(at_ + 3, end - at_ - 3);
    const bool caret = !name.empty() && name[0] == '^';
    if (caret) name.remove_prefix(1);
    const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
      return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_';
    });
    if (!plain) refuse("the Unicode property \"" + std::string(name) + "\"");
    if (caseless_.back()) refuse("a Unicode property inside of (?i:...)");
    const bool negated = caret != (peek(1) == 'P');
    out_ += negated ? "\\P{" : "\\p{";
    if (name.size() > 2) out_ += "sc:";
    out_ += std::string(name) + "}";
    at_ = end + 1;
  }

  void translate_class() {
    if (caseless_.back()) refuse("a character class inside of (?i:...)");
    copy(peek(1) == '^' ? 2 : 1);
    if (peek() == ']') refuse("a character class that begins with ]");
    while (peek() != ']') {
      if (at_ >= in_.size()) refuse("a character class that is not closed");
      if (peek() == '[') refuse("a character class inside of a character class");
      if (starts_with("&&")) refuse("the intersection of character classes (&&)");
      if (peek() == '\\') {
        translate_escape(true);
      } else {
        copy(1);
      }
    }
    copy(1);
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw InputError({.what = "A tokenizer's regular expression has " + what + ", which is not supported",
                      .where = where_,
                      .why = "at byte " + std::to_string(at_) + " of " + std::string(in_)});
  }

  std::string_view in_;
  std::string where_;
  std::size_t at_ = 0;
  std::string out_;
  std::vector<bool> caseless_ = {false};  // for the open groups, outermost first
};

/// The PCRE2 pattern that matches what `pattern` matches in Oniguruma. `where` names its origin in errors.
/// Throws InputError for constructs that might match differently.
inline std::string pcre2_from_oniguruma(std::string_view pattern, const std::string& where) {
  return OnigurumaTranslator(pattern, where).translate();
}

/// The pattern that matches exactly `text`.
inline std::string pcre2_from_literal(std::string_view text) {
  std::string pattern;
  for (char c : text) {
    if (is_ascii_sign(c)) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace parscale::io
