// What parscale-tokenize does besides reading its options.
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <parscale/io/safetensors_reader.hpp>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "../../examples/tokenize/jsonl.hpp"
#include "../../examples/tokenize/token_file.hpp"
#include "tokenizer_files.hpp"

using namespace parscale;
using namespace parscale::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("parscale-tokenize-" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { fs::remove_all(path); }

  fs::path file(const std::string& name, const std::string& content) const {
    std::ofstream(path / name, std::ios::binary) << content;
    return path / name;
  }
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }
};

std::string encoded(const std::string& lines) {
  std::istringstream in(lines);
  std::ostringstream out;
  program::encode_lines(austen(), in, out);
  return out.str();
}

std::string decoded(const std::string& lines, io::SpecialTokens special = io::SpecialTokens::keep) {
  std::istringstream in(lines);
  std::ostringstream out;
  program::decode_lines(austen(), special, in, out);
  return out.str();
}

}  // namespace

TEST_CASE("Lines of text become lines of ids, and ids become text again") {
  const std::string ids =
      encoded("{\"text\": \"It was\"}\n{\"text\": \"caf\\u00e9<|endoftext|>\", \"other\": 1}\n");
  CHECK(ids.substr(0, ids.find('\n')) == "{\"ids\":[1251,309]}");
  CHECK(decoded(ids) == "{\"text\":\"It was\"}\n{\"text\":\"caf\u00E9<|endoftext|>\"}\n");
  CHECK(decoded(ids, io::SpecialTokens::skip) == "{\"text\":\"It was\"}\n{\"text\":\"caf\u00E9\"}\n");
}

TEST_CASE("A line that is not JSON is named by its number") {
  CHECK_THROWS_MATCHES(encoded("{\"text\": \"a\"}\n{\"text\":\n"), InputError,
                       MessageMatches(ContainsSubstring("line 2")));
}
TEST_CASE("A line without text is named by its number") {
  CHECK_THROWS_MATCHES(encoded("{\"text\": 7}\n"), InputError,
                       MessageMatches(ContainsSubstring("has no text") && ContainsSubstring("line 1")));
}
TEST_CASE("An empty line is refused") { CHECK_THROWS_AS(encoded("{\"text\": \"a\"}\n\n"), InputError); }
TEST_CASE("A line without ids is named by its number") {
  CHECK_THROWS_MATCHES(decoded("{\"ids\": []}\n{\"ids\": 3}\n"), InputError,
                       MessageMatches(ContainsSubstring("has no ids") && ContainsSubstring("line 2")));
}
TEST_CASE("Ids that are no tokens are named") {
  for (const char* id : {"4096", "-1", "1.5", "\"a\"", "99999999999"})
    CHECK_THROWS_MATCHES(decoded("{\"ids\": [" + std::string(id) + "]}"), InputError,
                         MessageMatches(ContainsSubstring(id)));
}
TEST_CASE("Output that is not taken is a storage error") {
  std::istringstream in("{\"text\": \"a\"}\n");
  std::ostringstream out;
  out.setstate(std::ios::badbit);
  CHECK_THROWS_AS(program::encode_lines(austen(), in, out), StorageError);
}

TEST_CASE("Files become one tensor of tokens, with an end token behind each") {
  const Folder folder;
  const std::vector<fs::path> files = {folder.file("a.txt", "It was"), folder.file("b.txt", ""),
                                       folder.file("c.txt", " It was")};
  const auto ids = program::tokenize_files(austen(), files, 0);
  const fs::path out = folder.path / "tokens.safetensors";
  for (const io::Dtype dtype : {io::Dtype::i32, io::Dtype::i64}) {
    program::write_token_file(out, ids, dtype, austen());
    const io::SafetensorsFile file(out);
    const auto* tensor = file.find("input_ids");
    REQUIRE(tensor != nullptr);
    CHECK(tensor->dtype == dtype);
    CHECK(tensor->shape == std::vector<Index>{static_cast<Index>(ids.size())});
    std::vector<std::int64_t> read(tensor->count());
    file.read(*tensor, std::span<std::int64_t>(read));
    CHECK(read == std::vector<std::int64_t>(ids.begin(), ids.end()));
    CHECK(read.at(2) == 0);
    CHECK(read.at(3) == 0);
    CHECK(read.back() == 0);
  }
  CHECK(folder.entries() == 4);
}

TEST_CASE("A file that is not UTF-8 is named with the line") {
  const Folder folder;
  CHECK_THROWS_MATCHES(program::tokenize_files(austen(), {folder.file("bad.txt", "a\nb\xFF")}, {}),
                       InputError, MessageMatches(ContainsSubstring("bad.txt, line 2")));
}

TEST_CASE("A file aside that is abandoned leaves the old file and nothing else") {
  const Folder folder;
  const fs::path out = folder.file("tokens.safetensors", "old");
  {
    const program::FileAside aside(out);
    std::ofstream(aside.path()) << "half";
    CHECK(folder.entries() == 2);
  }
  CHECK(folder.entries() == 1);
  CHECK(io::read_file(out) == "old");
}
