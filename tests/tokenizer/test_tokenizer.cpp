// What a tokenizer promises besides the goldens: round trips, threads, streams, tokens by name.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdint>
#include <parscale/io/stream_decoder.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tokenizer_files.hpp"

using namespace parscale;
using namespace parscale::test;
using io::SpecialTokens;
using Ids = std::vector<std::int32_t>;

TEST_CASE("A novel comes back from its tokens") {
  const std::string text = io::read_file(source_dir / "data/austen/persuasion.txt");
  CHECK(austen().decode(austen().encode(text)) == text);
  CHECK(qwen().decode(qwen().encode(text)) == text);
}

TEST_CASE("Several threads encode with one tokenizer and get what one thread gets") {
  const std::string text = io::read_file(source_dir / "data/austen/emma.txt").substr(0, 60'000);
  const Ids expected = austen().encode(text);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results)
    threads.emplace_back([&] {
      for (int i = 0; i < 3; ++i) result = austen().encode(text);
    });
  for (auto& thread : threads) thread.join();
  for (const Ids& result : results) CHECK(result == expected);
}

TEST_CASE("Encoding may append to ids that are there already") {
  Ids ids = {7};
  austen().encode("It was", ids);
  austen().encode(" It was", ids);
  Ids expected = {7};
  for (const char* text : {"It was", " It was"})
    for (std::int32_t id : austen().encode(text)) expected.push_back(id);
  CHECK(ids == expected);
}

TEST_CASE("A moved tokenizer works as before") {
  auto original = changed([](io::Json&) {});
  const Ids ids = original.encode("Emma <s> Woodhouse");
  const io::Tokenizer moved = std::move(original);
  CHECK(moved.encode("Emma <s> Woodhouse") == ids);
  CHECK(moved.decode(ids) == "Emma <s> Woodhouse");
}

TEST_CASE("Tokens are found by their spelling in the file") {
  CHECK(qwen().id_of("<|endoftext|>") == 151643);
  CHECK(qwen().id_of("Ġthe") == 279);
  CHECK(qwen().encode(" the") == Ids{279});
  CHECK_FALSE(qwen().id_of(" the"));
  CHECK_FALSE(qwen().id_of("<|no such token|>"));
}

TEST_CASE("The size is the highest id + 1, added tokens included") {
  CHECK(austen().size() == 4096);
  CHECK(qwen().size() == 151665);
}

TEST_CASE("Special tokens can be left out of the text, other added tokens cannot") {
  const std::int32_t end = qwen().id_of("<|endoftext|>").value();
  const std::int32_t separator = qwen().id_of("<|file_sep|>").value();
  const Ids ids = {end, 279, separator};
  CHECK(qwen().is_special(end));
  CHECK_FALSE(qwen().is_special(separator));
  CHECK(qwen().decode(ids) == "<|endoftext|> the<|file_sep|>");
  CHECK(qwen().decode(ids, SpecialTokens::skip) == " the<|file_sep|>");
}

TEST_CASE("The fingerprint tells files apart and stays the same for the same file") {
  const auto file = source_dir / "data/austen-bpe4096/tokenizer.json";
  CHECK(io::Tokenizer::load(file).fingerprint() == austen().fingerprint());
  CHECK(austen().fingerprint() != qwen().fingerprint());
  CHECK(austen().fingerprint() == 16585774558200570492u);  // token caches on disk depend on it
}

TEST_CASE("A stream shows a character only when all of its bytes have come") {
  const Ids ids = austen().encode("\U0001F600");
  REQUIRE(ids.size() == 4);
  io::StreamDecoder decoder(austen());
  for (std::size_t i = 0; i < 3; ++i) CHECK(decoder.push(ids[i]).empty());
  CHECK(decoder.push(ids[3]) == "\U0001F600");
  CHECK(decoder.flush().empty());
}

TEST_CASE("A stream that ends inside of a character says so, and can be used again") {
  const Ids ids = austen().encode("\U0001F600");
  io::StreamDecoder decoder(austen());
  CHECK(decoder.push(ids[0]).empty());
  CHECK(decoder.flush() == "\uFFFD");
  CHECK(decoder.push(austen().encode("a")[0]) == "a");
  CHECK(decoder.flush().empty());
}

TEST_CASE("Broken bytes between tokens become one replacement character for each broken sequence") {
  const Ids face = austen().encode("\U0001F600"), letter = austen().encode("a");
  const Ids ids = {face[0], face[1], letter[0], face[3], face[3]};
  CHECK(austen().decode(ids) == "\uFFFDa\uFFFD\uFFFD");
  io::StreamDecoder decoder(austen());
  std::string text;
  for (std::int32_t id : ids) text += decoder.push(id);
  CHECK(text + decoder.flush() == "\uFFFDa\uFFFD\uFFFD");
}

TEST_CASE("Long runs of one character are encoded without a limit") {
  const std::string run = GENERATE(" ", "a", "-", "\n", "é", "7", " \n", "aA");
  std::string text;
  while (text.size() < 200'000) text += run;
  CHECK(qwen().decode(qwen().encode(text)) == text);
}
