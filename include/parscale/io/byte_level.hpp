/// The byte alphabet of byte-level BPE (GPT-2): a printable character for each of the 256 bytes, in which
/// vocabularies are spelt. "Ġthe" spells the bytes of " the".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "unicode.hpp"

namespace parscale::io {

namespace detail {

/// Printable Latin-1 characters stand for themselves.
constexpr bool byte_spells_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/// The others take the code points from U+0100 on, in order.
constexpr std::array<char16_t, 256> make_byte_alphabet() {
  std::array<char16_t, 256> alphabet{};
  char16_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte)
    alphabet[static_cast<std::size_t>(byte)] =
        byte_spells_itself(byte) ? static_cast<char16_t>(byte) : next++;
  return alphabet;
}

constexpr std::size_t byte_alphabet_end = 0x144;

/// For each code point the byte that it spells, -1 for none.
constexpr std::array<std::int16_t, byte_alphabet_end> make_spelt_bytes() {
  std::array<std::int16_t, byte_alphabet_end> bytes{};
  bytes.fill(-1);
  std::int16_t byte = 0;
  for (char16_t c : make_byte_alphabet()) bytes[c] = byte++;
  return bytes;
}

inline constexpr auto byte_alphabet = make_byte_alphabet();
inline constexpr auto spelt_bytes = make_spelt_bytes();

}  // namespace detail

/// Bytes in the alphabet's spelling.
inline std::string spell_bytes(std::string_view bytes) {
  std::string spelling;
  for (char c : bytes) append_utf8(detail::byte_alphabet[static_cast<unsigned char>(c)], spelling);
  return spelling;
}

/// The bytes that a spelling (valid UTF-8) stands for; nothing when a character is not of the alphabet.
inline std::optional<std::string> spelt_bytes(std::string_view spelling) {
  std::string bytes;
  for (std::size_t at = 0; at < spelling.size();) {
    const Character c = character_at(spelling, at);
    if (c.code_point >= detail::byte_alphabet_end || detail::spelt_bytes[c.code_point] < 0)
      return std::nullopt;
    bytes += static_cast<char>(detail::spelt_bytes[c.code_point]);
    at += c.length;
  }
  return bytes;
}

}  // namespace parscale::io
