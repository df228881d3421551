// UTF-8, the byte alphabet and form C.
#include <utf8proc.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <memory>
#include <parscale/io/byte_level.hpp>
#include <parscale/io/nfc.hpp>
#include <parscale/io/unicode.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace parscale::io;

namespace {

std::string utf8(char32_t c) {
  std::string text;
  append_utf8(c, text);
  return text;
}

std::string repaired(const std::string& bytes) {
  std::string text;
  append_repaired(bytes, text);
  return text;
}

/// Form C by utf8proc alone.
std::string whole_nfc(const std::string& text) {
  std::string out;
  detail::append_nfc(text, out);
  return out;
}

template <class F>
void for_each_code_point(F&& f) {
  for (char32_t c = 0; c < 0x110000; ++c)
    if (c < 0xD800 || c >= 0xE000) f(c);
}

}  // namespace

TEST_CASE("Every code point is one character of UTF-8 and comes back") {
  for_each_code_point([](char32_t c) {
    const std::string text = utf8(c);
    const Utf8Step step = utf8_step(text);
    const Character character = character_at(text, 0);
    if (step.kind != Utf8Step::Kind::character || step.length != text.size() || character.code_point != c ||
        character.length != text.size() || previous_character(text + text, 2 * text.size()) != text.size())
      FAIL("code point " << static_cast<unsigned>(c));
  });
}

TEST_CASE("Invalid UTF-8 is found where it begins") {
  const std::vector<std::pair<std::string, std::size_t>> cases = {
      {"\x80", 0},          {"abcdefgh\xFFxyz", 8},  {"ab\xC0\x80", 2},       {"\xE0\x80\x80", 0},
      {"a\xED\xA0\x80", 1}, {"\xF4\x90\x80\x80", 0}, {"12345678\xE2\x82", 8}, {"\xF8\x88\x80\x80\x80", 0},
      {"é\xC3", 2}};
  for (const auto& [text, position] : cases) CHECK(first_invalid_utf8(text) == position);
  CHECK_FALSE(first_invalid_utf8(""));
  CHECK_FALSE(first_invalid_utf8("plain, caf\u00E9 \u20AC \U0001F600 and then some more text"));
}

TEST_CASE("Each maximal broken sequence becomes one replacement character") {
  CHECK(repaired("a\xF0\x9F\x98z") == "a\uFFFDz");
  CHECK(repaired("\xE0\x80\x80") == "\uFFFD\uFFFD\uFFFD");
  CHECK(repaired("\xED\xA0\x80") == "\uFFFD\uFFFD\uFFFD");
  CHECK(repaired("\xC3\xC3\xA9") == "\uFFFD\u00E9");
  CHECK(repaired("\xFF\xFE") == "\uFFFD\uFFFD");
}

TEST_CASE("A character that is unfinished at the end is left for later") {
  std::string text;
  CHECK(append_repaired("ab\xF0\x9F\x98", text) == 2);
  CHECK(text == "ab");
}

TEST_CASE("The byte alphabet spells all bytes differently, and they come back") {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  CHECK(spelt_bytes(spell_bytes(all)) == all);
  CHECK(spell_bytes(" the\n") == "ĠtheĊ");
  CHECK_FALSE(spelt_bytes("two words"));
  CHECK_FALSE(spelt_bytes("\uFF5C"));
}

TEST_CASE("Characters that begin a segment are in form C and never join what stands before") {
  std::vector<bool> joins_backwards(0x110000, false);
  for_each_code_point([&](char32_t c) {
    std::array<utf8proc_int32_t, 8> parts{};
    int boundary = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(), 8,
                                               UTF8PROC_DECOMPOSE, &boundary);
    for (int i = 1; i < count; ++i)
      joins_backwards[static_cast<std::size_t>(parts[static_cast<std::size_t>(i)])] = true;
  });
  for_each_code_point([&](char32_t c) {
    if (!begins_nfc_segment(c)) return;
    const bool starter = utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class == 0;
    if (!starter || joins_backwards[c] || whole_nfc(utf8(c)) != utf8(c)) FAIL(static_cast<unsigned>(c));
  });
}

TEST_CASE("Normalising in segments gives what normalising the whole text gives") {
  const std::vector<std::pair<char32_t, char32_t>> ranges = {
      {0x20, 0x7F},     {0xA0, 0x250},    {0x300, 0x370},   {0x370, 0x500},
      {0x5D0, 0x5EB},   {0x900, 0x970},   {0x1100, 0x1200}, {0x1E00, 0x2030},
      {0x3040, 0x3100}, {0x4E00, 0x4E10}, {0xAC00, 0xAC20}, {0xF900, 0xFA00}};
  std::mt19937 random(1);
  std::string scratch;
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (auto length = 1 + random() % 20; length > 0; --length) {
      const auto [first, end] = ranges[random() % ranges.size()];
      append_utf8(static_cast<char32_t>(first + random() % (end - first)), text);
    }
    INFO(text);
    REQUIRE(nfc(text, scratch) == whole_nfc(text));
  }
}

TEST_CASE("Text in form C is not copied") {
  const std::string text = "Plain text, caf\u00E9, \u201Cquotes\u201D, \u0416\u4E16\u754C";
  std::string scratch;
  CHECK(nfc(text, scratch).data() == text.data());
  CHECK(nfc("cafe\u0301 x", scratch) == "caf\u00E9 x");
}

TEST_CASE("Marks younger than Hugging Face's tables stay where they are") {
  std::string scratch;
  // U+09FE came with Unicode 11 and would otherwise move behind the dot below, U+0323.
  CHECK(nfc("\u0995\u09FE\u0323\u0301\u0316", scratch) == "\u0995\u09FE\u0323\u0316\u0301");
  // U+11935 and U+11930 would otherwise become U+11938.
  CHECK(nfc("\U00011935\U00011930", scratch) == "\U00011935\U00011930");
}

TEST_CASE("White space is Unicode's property") {
  std::string found;
  for (char32_t c = 0; c < 0x110000; ++c)
    if (is_white_space(c)) append_utf8(c, found);
  CHECK(found ==
        "\t\n\v\f\r "
        "\u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029"
        "\u202F\u205F\u3000");
}
