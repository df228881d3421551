// Ids and text, equal to what Hugging Face's tokenizers says on every line of the golden files.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <parscale/io/stream_decoder.hpp>
#include <string>
#include <vector>

#include "tokenizer_files.hpp"

using namespace parscale;
using namespace parscale::test;
using io::Json;
using io::SpecialTokens;

namespace {

std::string decode_streaming(const io::Tokenizer& tokenizer, const std::vector<std::int32_t>& ids,
                             SpecialTokens special) {
  io::StreamDecoder decoder(tokenizer, special);
  std::string text;
  for (std::int32_t id : ids) {
    const std::string piece = decoder.push(id);
    REQUIRE_FALSE(io::first_invalid_utf8(piece));
    text += piece;
  }
  return text + decoder.flush();
}

/// Lays a change over a value (RFC 7396): members replace members, null removes one.
void patch(Json& json, const Json& change) {
  if (!change.is_object()) {
    json = change;
    return;
  }
  if (!json.is_object()) json = Json::object();
  for (const auto& [name, value] : change.members()) {
    if (value.is_null())
      json.erase(name);
    else
      patch(json[name], value);
  }
}

void check_decoded(const io::Tokenizer& tokenizer, const std::vector<std::int32_t>& ids,
                   const std::string& text, SpecialTokens special) {
  REQUIRE(tokenizer.decode(ids, special) == text);
  REQUIRE(decode_streaming(tokenizer, ids, special) == text);
}

/// Checks the lines that are left in a golden file and returns how many there were.
int check_lines(const io::Tokenizer& tokenizer, std::istream& lines) {
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    INFO(line);
    const Json golden = io::parse_json(line, "golden");
    const auto ids = golden["ids"].get<std::vector<std::int32_t>>();
    REQUIRE(tokenizer.encode(golden["text"].get<std::string>()) == ids);
    check_decoded(tokenizer, ids, golden["decoded"].get<std::string>(), SpecialTokens::keep);
    if (golden.contains("without_special"))
      check_decoded(tokenizer, ids, golden["without_special"].get<std::string>(), SpecialTokens::skip);
  }
  return count;
}

}  // namespace

TEST_CASE("The tokenizer of the novels agrees with Hugging Face on every golden line") {
  std::ifstream lines(tokenizer_goldens() / "austen-bpe4096.jsonl");
  CHECK(check_lines(austen(), lines) > 400);
}

TEST_CASE("The tokenizer of Qwen2.5 agrees with Hugging Face on every golden line") {
  std::ifstream lines(tokenizer_goldens() / "qwen2.5.jsonl");
  CHECK(check_lines(qwen(), lines) > 400);
}

TEST_CASE("Every variant of the pre-tokenizer, model and added tokens agrees with Hugging Face") {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(variants_dir))
    if (entry.path().extension() == ".jsonl") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  CHECK(files.size() > 20);
  for (const auto& path : files) {
    INFO(path.string());
    std::ifstream lines(path);
    std::string first;
    std::getline(lines, first);
    const auto tokenizer = changed([&](Json& json) { patch(json, io::parse_json(first, "patch")["patch"]); });
    CHECK(check_lines(tokenizer, lines) > 40);
  }
}
