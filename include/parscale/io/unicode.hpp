/// Text as UTF-8: one character at a time, where it breaks, what stands in for what is broken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace parscale::io {

/// What a text begins with.
struct Utf8Step {
  enum class Kind : std::uint8_t {
    character,   ///< one whole character
    broken,      ///< bytes that no continuation can repair
    unfinished,  ///< the text ends inside of a character
  };
  Kind kind;
  std::size_t length;  ///< bytes of it; 1 at least
};

/// Looks at the first character of a text that is not empty. A broken sequence ends before the first byte
/// that cannot belong to it (the Unicode standard's "maximal subpart", which decoders replace as one).
inline Utf8Step utf8_step(std::string_view text) {
  using Kind = Utf8Step::Kind;
  const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return {Kind::character, 1};
  if (first < 0xC2 || first > 0xF4) return {Kind::broken, 1};
  const std::size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and what lies beyond U+10FFFF.
  unsigned lowest = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  unsigned highest = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Kind::unfinished, i};
    if (byte(i) < lowest || byte(i) > highest) return {Kind::broken, i};
    lowest = 0x80;
    highest = 0xBF;
  }
  return {Kind::character, length};
}

/// Whether the eight bytes from `at` on are all ASCII; false near the end of the text.
inline bool eight_ascii(std::string_view text, std::size_t at) {
  std::uint64_t word;
  if (text.size() - at < sizeof word) return false;
  std::memcpy(&word, text.data() + at, sizeof word);
  return (word & 0x8080808080808080u) == 0;
}

/// Position of the first byte that is not valid UTF-8; nothing when all are.
inline std::optional<std::size_t> first_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    if (eight_ascii(text, at)) {
      at += 8;
      continue;
    }
    const Utf8Step step = utf8_step(text.substr(at));
    if (step.kind != Utf8Step::Kind::character) return at;
    at += step.length;
  }
  return std::nullopt;
}

/// One character of a valid text.
struct Character {
  char32_t code_point;
  std::size_t length;  ///< bytes
};

/// The character that starts at `at` in a valid text.
inline Character character_at(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {first, 1};
  const std::size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  char32_t code_point = first & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i)
    code_point = code_point << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3Fu);
  return {code_point, length};
}

/// Where the character that ends at `end` (> 0) begins, in a valid text.
inline std::size_t previous_character(std::string_view text, std::size_t end) {
  do --end;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

/// Appends a code point's bytes.
inline void append_utf8(char32_t c, std::string& out) {
  const auto tail = [c](int shift) { return static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += {static_cast<char>(0xC0 | c >> 6), tail(0)};
  } else if (c < 0x10000) {
    out += {static_cast<char>(0xE0 | c >> 12), tail(6), tail(0)};
  } else {
    out += {static_cast<char>(0xF0 | c >> 18), tail(12), tail(6), tail(0)};
  }
}

/// Appends `bytes` as valid UTF-8, every broken sequence replaced by U+FFFD. Returns how many bytes it took:
/// all of them, or up to a character that is still unfinished at the end.
inline std::size_t append_repaired(std::string_view bytes, std::string& out) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Step step = utf8_step(bytes.substr(at));
    if (step.kind == Utf8Step::Kind::unfinished) break;
    if (step.kind == Utf8Step::Kind::character) out.append(bytes, at, step.length);
    if (step.kind == Utf8Step::Kind::broken) append_utf8(0xFFFD, out);
    at += step.length;
  }
  return at;
}

/// Unicode's White_Space property.
constexpr bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

}  // namespace parscale::io
