// Patterns in Oniguruma's dialect, and cutting text with them.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <parscale/io/oniguruma.hpp>
#include <parscale/io/pre_tokenizer.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace parscale;
using namespace parscale::io;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Pieces = std::vector<std::string>;

namespace {

Pieces cut(const std::string& pattern, std::string_view text,
           SplitBehavior behavior = SplitBehavior::isolated, bool inverted = false) {
  RegexScratch scratch;
  Pieces pieces;
  Splitter(Regex(pcre2_from_oniguruma(pattern, "test"), "test"), behavior, inverted)
      .for_each_piece(text, scratch, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

bool matches(const std::string& pattern, std::string_view text) {
  RegexScratch scratch;
  const auto match = Regex(pcre2_from_oniguruma(pattern, "test"), "test").find(text, 0, scratch);
  return match && match->begin == 0 && match->end == text.size();
}

}  // namespace

TEST_CASE("The five behaviors keep, drop or join the matches") {
  const std::string_view text = "the-final--countdown";
  using enum SplitBehavior;
  CHECK(cut("-", text, isolated) == Pieces{"the", "-", "final", "-", "-", "countdown"});
  CHECK(cut("-", text, removed) == Pieces{"the", "final", "countdown"});
  CHECK(cut("-", text, contiguous) == Pieces{"the", "-", "final", "--", "countdown"});
  CHECK(cut("-", text, merged_with_previous) == Pieces{"the-", "final-", "-", "countdown"});
  CHECK(cut("-", text, merged_with_next) == Pieces{"the", "-final", "-", "-countdown"});
}

TEST_CASE("An inverted splitter treats what lies between matches as the matches") {
  CHECK(cut("[a-z]+", "ab, cd", SplitBehavior::removed, true) == Pieces{"ab", "cd"});
  CHECK(cut("[a-z]+", ", ab", SplitBehavior::merged_with_next, true) == Pieces{", ab"});
}

TEST_CASE("A splitter cuts at empty matches too") {
  CHECK(cut("(?=[A-Z])", "someCamelCase") == Pieces{"some", "Camel", "Case"});
}

TEST_CASE("Splitters work in a chain, each on the pieces of the one before") {
  std::vector<Splitter> chain;
  chain.emplace_back(Regex("\\p{N}", "test"));
  chain.emplace_back(Regex("^b", "test"));  // ^ is the beginning of a piece
  const PreTokenizer pre_tokenizer(std::move(chain), {.add_prefix_space = true, .splitter = std::nullopt});
  PreTokenizer::Scratch scratch;
  Pieces words;
  pre_tokenizer.for_each_word("ab1bc 2", scratch, [&](std::string_view word) { words.emplace_back(word); });
  CHECK(words == Pieces{" ab", " 1", " b", " c ", " 2"});
}

TEST_CASE("Case does not count for the long s and the Kelvin sign") {
  CHECK(matches("(?i:'s)", "'\u017F"));
  CHECK(matches("(?i:k)", "\u212A"));
  CHECK_FALSE(matches("'s", "'S"));
  CHECK_FALSE(matches("(?i:a)b", "AB"));
}

TEST_CASE("White space has no Mongolian vowel separator, and has the next line character") {
  CHECK_FALSE(matches("\\s", "\u180E"));
  CHECK_FALSE(matches("[x\\s]", "\u180E"));
  CHECK(matches("\\S", "\u180E"));
  CHECK(matches("\\s", "\u0085"));
  CHECK(matches("[\\s]+", " \t\u00A0\u3000\u2028"));
}

TEST_CASE("Word characters are letters, marks, decimal digits and connectors") {
  CHECK(matches("\\w+", "a\u0301_\u203F7\u00B2\u24B6"));
  CHECK_FALSE(matches("\\w", "\u2460"));
  CHECK(matches("[\\w]", "\u0301"));
  CHECK(matches("\\W", "-"));
}

TEST_CASE("A script is the script of a character, not one that also uses it") {
  CHECK(matches("\\p{Han}", "\u4E16"));
  CHECK_FALSE(matches("\\p{Han}", "\u3001"));
  CHECK(matches("\\p{^Han}", "\u3001"));
  CHECK(matches("\\P{^Lu}", "A"));
}

TEST_CASE("Escapes of code points and punctuation are understood") {
  CHECK(matches("\\u00e9\\x{1F600}\\-\\.[\\]\\\\]", "\u00E9\U0001F600-.]"));
}

TEST_CASE("Lines end with a line feed alone, and a dot matches everything else") {
  CHECK(matches(".", "\r"));
  CHECK_FALSE(matches(".", "\n"));
  CHECK(cut("^b", "b\nb\rb") == Pieces{"b", "\n", "b", "\rb"});
}

TEST_CASE("A literal pattern matches itself, whatever signs are in it") {
  RegexScratch scratch;
  const std::string text = "a.b*(c)[d]\\E{2}^$|? \u00E9";
  const auto match = Regex(pcre2_from_literal(text), "test").find("x" + text, 0, scratch);
  REQUIRE(match);
  CHECK(match->begin == 1);
  CHECK(match->end == text.size() + 1);
}

TEST_CASE("Constructs that Oniguruma reads differently are refused by name") {
  const std::vector<std::pair<std::string, std::string>> cases = {{"(?i:ss)", "\"ss\""},
                                                                  {"(?i:[a-z])", "character class"},
                                                                  {"(?i:\u00E9)", "beyond ASCII"},
                                                                  {"(?i:\\p{Lu})", "property"},
                                                                  {"(?m:a)", "group (?m:"},
                                                                  {"(?<name>a)", "group (?<n"},
                                                                  {"a{2}+", "repetition"},
                                                                  {"a{,2}", "repetition"},
                                                                  {"{", "repetition"},
                                                                  {"[a[b]]", "inside of"},
                                                                  {"[a&&b]", "intersection"},
                                                                  {"[\\S]", "\\S inside"},
                                                                  {"[]a]", "begins with ]"},
                                                                  {"[a", "not closed"},
                                                                  {"(a", "not closed"},
                                                                  {"a)", "without its ("},
                                                                  {"\\bword", "escape \\b"},
                                                                  {"\\x41", "escape \\x"},
                                                                  {"\\u12", "hexadecimal"},
                                                                  {"\\pL", "without braces"},
                                                                  {"\\p{L&}", "property \"L&\""},
                                                                  {"(a)\\1", "escape \\1"},
                                                                  {"a\\", "escape"}};
  for (const auto& [pattern, words] : cases) {
    INFO(pattern);
    CHECK_THROWS_MATCHES(pcre2_from_oniguruma(pattern, "test"), InputError,
                         MessageMatches(ContainsSubstring(words)));
  }
}
