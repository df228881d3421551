#include "numbers.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <system_error>

namespace parscale::program {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string lower(std::string_view word) {
  std::string out(word);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

Number unclear(std::string why) { return {.kind = Number::Kind::unclear, .why = std::move(why)}; }

/// digits [. digits] [e [sign] digits], at least one digit before the exponent
bool has_number_form(std::string_view word) {
  std::size_t i = 0;
  const auto digits = [&] {
    const std::size_t start = i;
    while (i < word.size() && is_digit(word[i])) ++i;
    return i - start;
  };
  std::size_t mantissa = digits();
  if (i < word.size() && word[i] == '.') ++i, mantissa += digits();
  if (mantissa == 0) return false;
  if (i < word.size() && (word[i] == 'e' || word[i] == 'E')) {
    ++i;
    if (i < word.size() && (word[i] == '-' || word[i] == '+')) ++i;
    if (digits() == 0) return false;
  }
  return i == word.size();
}

/// 0x1F, 0o17, 0b1, 1_000: numbers of programming languages that this program does not read.
bool is_other_notation(const std::string& word) {
  const bool prefixed = word.size() > 2 && word[0] == '0' &&
                        (word[1] == 'x' || word[1] == 'o' || word[1] == 'b') &&
                        word.find_first_not_of("0123456789abcdef", 2) == word.npos;
  const bool grouped =
      is_digit(word[0]) && word.find('_') != word.npos && word.find_first_not_of("0123456789_") == word.npos;
  return prefixed || grouped;
}

}  // namespace

Number read_number(std::string_view word) {
  const bool negative = !word.empty() && word[0] == '-';
  const std::string_view digits = negative || (!word.empty() && word[0] == '+') ? word.substr(1) : word;
  if (digits.empty()) return {};
  const std::string plain = lower(digits);
  if (plain == "nan" || plain == ".nan" || plain == "inf" || plain == ".inf" || plain == "infinity")
    return unclear("is not a finite number");
  if (is_other_notation(plain)) return unclear("is not written as a decimal number");
  if (!has_number_form(digits)) return {};
  if (digits.size() > 1 && digits[0] == '0' && is_digit(digits[1]))
    return unclear("starts with a zero, which some read as octal");

  Number number{.kind = Number::Kind::real};
  const char* end = digits.data() + digits.size();
  if (std::from_chars(digits.data(), end, number.real).ec != std::errc())
    return unclear("is beyond the range of a double");
  if (negative) number.real = -number.real;
  if (digits.find_first_of(".eE") != digits.npos) return number;
  const std::string signed_digits = (negative ? "-" : "") + std::string(digits);
  if (std::from_chars(signed_digits.data(), signed_digits.data() + signed_digits.size(), number.integer).ec !=
      std::errc())
    return unclear("is beyond the range of 64 bits");
  number.kind = Number::Kind::integer;
  return number;
}

std::string write_number(double value) {
  std::array<char, 32> text{};
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::general).ptr;
  return std::string(text.data(), end);
}

}  // namespace parscale::program
