// Files and texts that must be refused, each with words that name the trouble.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tokenizer_files.hpp"

using namespace parscale;
using namespace parscale::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using io::Json;

namespace {

void refuses(const std::function<void(Json&)>& change, const std::string& words) {
  CHECK_THROWS_MATCHES(changed(change), InputError, MessageMatches(ContainsSubstring(words)));
}

Json& splits(Json& json) { return json["pre_tokenizer"]["pretokenizers"]; }

Json added(std::int64_t id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

}  // namespace

TEST_CASE("Text that is not UTF-8 is refused with its position") {
  CHECK_THROWS_MATCHES(austen().encode("fine\nnot \xFF fine"), InputError,
                       MessageMatches(ContainsSubstring("line 2") && ContainsSubstring("byte 9 of 15")));
}
TEST_CASE("Text that ends inside of a character is refused") {
  CHECK_THROWS_MATCHES(austen().encode("caf\xC3"), InputError,
                       MessageMatches(ContainsSubstring("byte 3 of 4")));
}
TEST_CASE("A surrogate in UTF-8 is refused") {
  CHECK_THROWS_MATCHES(austen().encode("\xED\xA0\x80"), InputError,
                       MessageMatches(ContainsSubstring("byte 0")));
}
TEST_CASE("Ids without a token are refused") {
  for (const std::int32_t id : {-1, 4096, 2'000'000'000})
    CHECK_THROWS_MATCHES(austen().decode(std::vector{id}), InputError,
                         MessageMatches(ContainsSubstring("id " + std::to_string(id))));
}

TEST_CASE("A missing tokenizer file is named") {
  CHECK_THROWS_MATCHES(io::Tokenizer::load("/no/such/tokenizer.json"), InputError,
                       MessageMatches(ContainsSubstring("/no/such/tokenizer.json")));
}
TEST_CASE("A directory without a tokenizer.json is named") {
  CHECK_THROWS_MATCHES(io::Tokenizer::load(source_dir / "tests"), InputError,
                       MessageMatches(ContainsSubstring("tests/tokenizer.json")));
}
TEST_CASE("A tokenizer file that is not JSON is refused") {
  CHECK_THROWS_AS(io::Tokenizer::parse("{\"model\": ", "tokenizer.json"), InputError);
}
TEST_CASE("A tokenizer file that is no object is refused") {
  CHECK_THROWS_MATCHES(io::Tokenizer::parse("[1]", "tokenizer.json"), InputError,
                       MessageMatches(ContainsSubstring("JSON object is needed")));
}

TEST_CASE("Another version is refused") {
  refuses([](Json& json) { json["version"] = "2.0"; }, "version");
}
TEST_CASE("Truncation is refused") {
  refuses([](Json& json) { json["truncation"] = {{"max_length", 512}}; }, "truncation");
}
TEST_CASE("Padding is refused") {
  refuses([](Json& json) { json["padding"] = {{"strategy", "BatchLongest"}}; }, "padding");
}
TEST_CASE("A file without a model is refused") {
  refuses([](Json& json) { json.erase("model"); }, "lacks \"model\"");
}
TEST_CASE("Another model is refused by name") {
  refuses([](Json& json) { json["model"]["type"] = "WordPiece"; }, "\"WordPiece\"");
}
TEST_CASE("Dropout is refused") {
  refuses([](Json& json) { json["model"]["dropout"] = 0.1; }, "dropout");
}
TEST_CASE("Byte fallback is refused") {
  refuses([](Json& json) { json["model"]["byte_fallback"] = true; }, "byte_fallback");
}
TEST_CASE("Fusing unknown tokens is refused") {
  refuses([](Json& json) { json["model"]["fuse_unk"] = true; }, "fuse_unk");
}
TEST_CASE("A prefix of continuing subwords is refused") {
  refuses([](Json& json) { json["model"]["continuing_subword_prefix"] = "##"; }, "continuing_subword_prefix");
}
TEST_CASE("A suffix of words is refused") {
  refuses([](Json& json) { json["model"]["end_of_word_suffix"] = "</w>"; }, "end_of_word_suffix");
}
TEST_CASE("A vocabulary without all bytes is refused") {
  refuses([](Json& json) { json["model"]["vocab"].erase("a"); }, "byte alphabet");
}
TEST_CASE("An id that is not an integer is refused") {
  refuses([](Json& json) { json["model"]["vocab"]["zzz"] = "7"; }, "\"zzz\"");
}
TEST_CASE("A negative id is refused") {
  refuses([](Json& json) { json["model"]["vocab"]["zzz"] = -1; }, "out of range");
}
TEST_CASE("An absurdly large id is refused before memory is taken for it") {
  refuses([](Json& json) { json["model"]["vocab"]["zzz"] = 4'000'000'000'000; }, "out of range");
}
TEST_CASE("Two tokens with one id are refused") {
  refuses([](Json& json) { json["model"]["vocab"]["zzz"] = 70; }, "same id");
}
TEST_CASE("A vocabulary that is no object is refused") {
  refuses([](Json& json) { json["model"]["vocab"] = 3; }, "JSON object is needed");
}
TEST_CASE("Merges that are no array are refused") {
  refuses([](Json& json) { json["model"]["merges"] = 3; }, "not an array");
}
TEST_CASE("A merge of three parts is refused") {
  refuses([](Json& json) { json["model"]["merges"].push_back("a b c"); }, "a b c");
}
TEST_CASE("A merge of one part is refused") {
  refuses([](Json& json) { json["model"]["merges"].push_back({"a"}); }, "neither");
}
TEST_CASE("A merge of tokens that do not exist is refused") {
  refuses([](Json& json) { json["model"]["merges"].push_back({"qq", "zz"}); }, "\"qqzz\"");
}

TEST_CASE("Another normalizer is refused by name") {
  refuses([](Json& json) { json["normalizer"] = {{"type", "NFKC"}}; }, "\"NFKC\"");
}
TEST_CASE("Another normalizer inside of a sequence is refused by name") {
  refuses(
      [](Json& json) {
        json["normalizer"] = {{"type", "Sequence"},
                              {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}};
      },
      "\"Lowercase\"");
}
TEST_CASE("Another pre-tokenizer is refused by name") {
  refuses([](Json& json) { splits(json)[0] = {{"type", "Metaspace"}}; }, "\"Metaspace\"");
}
TEST_CASE("A file without a pre-tokenizer is refused") {
  refuses([](Json& json) { json["pre_tokenizer"] = nullptr; }, "lacks \"pre_tokenizer\"");
}
TEST_CASE("A pre-tokenizer without ByteLevel is refused") {
  refuses([](Json& json) { splits(json).erase(1); }, "ByteLevel");
}
TEST_CASE("A pre-tokenizer that goes on behind ByteLevel is refused") {
  refuses(
      [](Json& json) {
        splits(json).push_back({{"type", "Digits"}, {"individual_digits", true}});
      },
      "has to be the last");
}
TEST_CASE("An unknown behavior of a split is refused") {
  refuses([](Json& json) { splits(json)[0]["behavior"] = "Shuffled"; }, "Shuffled");
}
TEST_CASE("A split that does not say whether it is inverted is refused") {
  refuses([](Json& json) { splits(json)[0].erase("invert"); }, "\"invert\"");
}
TEST_CASE("A flag that is not a bool is refused") {
  refuses([](Json& json) { splits(json)[1]["add_prefix_space"] = 1; },
          "add_prefix_space must be true or false");
}
TEST_CASE("A regular expression that is not valid is refused") {
  refuses([](Json& json) { splits(json)[0]["pattern"] = {{"Regex", "a**("}}; }, "a**(");
}
TEST_CASE("A regular expression that PCRE2 refuses is named with PCRE2's words") {
  refuses([](Json& json) { splits(json)[0]["pattern"] = {{"Regex", "(?<=a+)b"}}; }, "lookbehind");
}
TEST_CASE("Another post-processor is refused by name") {
  refuses(
      [](Json& json) {
        json["post_processor"] = {{"type", "RobertaProcessing"}};
      },
      "\"RobertaProcessing\"");
}
TEST_CASE("Another decoder is refused by name") {
  refuses([](Json& json) { json["decoder"] = {{"type", "WordPiece"}}; }, "\"WordPiece\"");
}
TEST_CASE("A file without a decoder is refused") {
  refuses([](Json& json) { json["decoder"] = nullptr; }, "lacks \"decoder\"");
}
TEST_CASE("An added token with another id than its entry of the vocabulary is refused") {
  refuses([](Json& json) { json["added_tokens"].push_back(added(5, "a")); }, "unexpected id");
}
TEST_CASE("An added token that leaves a gap behind the vocabulary is refused") {
  refuses([](Json& json) { json["added_tokens"].push_back(added(700, "<gap>")); }, "would make it 600");
}
TEST_CASE("An added token that comes twice is refused") {
  refuses([](Json& json) { json["added_tokens"].push_back(added(0, "<s>")); }, "second time");
}
TEST_CASE("An added token without content is refused") {
  refuses([](Json& json) { json["added_tokens"].push_back(added(600, "")); }, "without content");
}
TEST_CASE("An added token that lacks a flag is refused") {
  refuses([](Json& json) { json["added_tokens"][0].erase("lstrip"); }, "lacks \"lstrip\"");
}
