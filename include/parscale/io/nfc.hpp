/// Unicode normalisation form C as tokenizers see it: letters and their accents as one character where there
/// is one. Almost all text is in this form already, so only the stretches that might not be go to utf8proc.
#pragma once

#include <utf8proc.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "unicode.hpp"

namespace parscale::io {

/// Whether a character is in form C by itself and never joins what stands before it: text may be cut in front
/// of it and the parts normalised apart. True for common scripts only; false is always safe.
constexpr bool begins_nfc_segment(char32_t c) {
  return c < 0x300 ||                    // Latin
         (c >= 0x400 && c < 0x483) ||    // Cyrillic
         (c >= 0x2010 && c < 0x2028) ||  // dashes, quotation marks, ellipsis
         (c >= 0x3041 && c < 0x3097) ||  // Hiragana
         (c >= 0x309D && c < 0x3100) ||  // Katakana
         (c >= 0x3400 && c < 0xA000);    // Han
}

/// Whether a character is younger than Unicode 9.0 and would take part in normalisation. Hugging Face's
/// tokenizers normalise with the tables of that version, to which such characters are like any letter: they
/// stay where they are and join with nothing. The list: combining marks, halves of composed characters, and
/// new blocks with either.
inline bool unknown_to_nfc(char32_t c) {
  struct Range {
    char32_t first, last;
  };
  static constexpr Range ranges[] = {
      {0x7FD, 0x7FD},     {0x870, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},
      {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1AFF},   {0x1DF6, 0x1DFA},
      {0xA82C, 0xA82C},   {0x105C0, 0x105FF}, {0x10D24, 0x10D27}, {0x10D69, 0x10D6D}, {0x10EAB, 0x10EFF},
      {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x11380, 0x113FF},
      {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34},
      {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
      {0x16100, 0x1613F}, {0x16D40, 0x16D7F}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
      {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF}, {0x1E6C0, 0x1E6FF},
  };
  const auto* range =
      std::find_if(std::begin(ranges), std::end(ranges), [c](Range r) { return c <= r.last; });
  return range != std::end(ranges) && c >= range->first;
}

namespace detail {

/// Appends the form C of a valid text.
inline void append_nfc(std::string_view text, std::string& out) {
  utf8proc_uint8_t* memory = nullptr;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const auto length = utf8proc_map(bytes, static_cast<utf8proc_ssize_t>(text.size()), &memory, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(memory, &std::free);
  if (length < 0) throw std::bad_alloc();  // the only error that is left for valid text
  out.append(reinterpret_cast<const char*>(memory), static_cast<std::size_t>(length));
}

/// Where the segment that `at` lies in ends.
inline std::size_t nfc_segment_end(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const Character c = character_at(text, at);
    if (begins_nfc_segment(c.code_point) || unknown_to_nfc(c.code_point)) break;
    at += c.length;
  }
  return at;
}

}  // namespace detail

/// The form C of a valid text: the text itself where it already is, otherwise a view of `scratch`.
inline std::string_view nfc(std::string_view text, std::string& scratch) {
  scratch.clear();
  std::size_t done = 0;           // what stands before it is in scratch
  std::size_t segment_begin = 0;  // of the segment that `at` lies in
  for (std::size_t at = 0; at < text.size();) {
    if (eight_ascii(text, at)) {
      at += 8;
      segment_begin = at - 1;
      continue;
    }
    const Character here = character_at(text, at);
    if (begins_nfc_segment(here.code_point)) {
      segment_begin = at;
      at += here.length;
    } else if (unknown_to_nfc(here.code_point)) {
      segment_begin = at += here.length;
    } else {
      const std::size_t end = detail::nfc_segment_end(text, at);
      scratch.append(text, done, segment_begin - done);
      detail::append_nfc(text.substr(segment_begin, end - segment_begin), scratch);
      done = segment_begin = at = end;
    }
  }
  if (done == 0) return text;
  return scratch.append(text, done);
}

}  // namespace parscale::io
