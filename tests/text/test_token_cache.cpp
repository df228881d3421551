#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <parscale/io/token_cache.hpp>

#include "corpus.hpp"

using namespace parscale;
using namespace parscale::io;
using namespace parscale::test;

namespace {

const std::string three_documents =
    "{\"text\":\"abc\"}\n{\"text\":\"\"}\n{\"text\":\"de\"}\n{\"text\":\"f\"}\n";
const std::vector<std::int32_t> their_tokens = {'a', 'b', 'c', 1000, 'd', 'e', 1000, 'f', 1000};

/// A source file, a cache folder, and what a program sees of them.
struct Bench {
  TemporaryDirectory in;
  std::filesystem::path source = in.file("data.jsonl", three_documents);
  ByteEncoder encoder = {};
  std::vector<std::string> notices = {};

  TokenCacheOptions options() {
    return {.folder = in / "cache", .notice = [this](const std::string& text) { notices.push_back(text); }};
  }
  /// A part as a new process sees it.
  std::shared_ptr<const TokenPart> open(const TokenCacheOptions& options) {
    return TokenCache(encoder, options).open(*as_text_file(source), {});
  }
  std::vector<std::int32_t> tokens() {
    const auto part = open(options());
    return {part->tokens().begin(), part->tokens().end()};
  }
  std::vector<std::filesystem::path> cached() const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(in / "cache")) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
  }
  int calls() const { return encoder.count->calls; }
};

std::string content_of(const std::filesystem::path& path) { return read_file(path); }

void overwrite(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

}  // namespace

TEST_CASE("Text is tokenised once and found in the cache afterwards") {
  Bench bench;
  CHECK(bench.tokens() == their_tokens);
  CHECK(bench.calls() == 3);
  const auto part = bench.open(bench.options());
  CHECK(bench.calls() == 3);
  CHECK(std::vector<std::int32_t>(part->tokens().begin(), part->tokens().end()) == their_tokens);
  REQUIRE(part->documents() == 3);
  CHECK(part->document(1).size() == 3);
  CHECK(part->document(1)[0] == 'd');
  CHECK(part->description().last == 1);
  CHECK(bench.cached().size() == 1);
  CHECK(bench.notices.empty());
}

TEST_CASE("Without an end token documents follow each other directly") {
  Bench bench;
  TextEncoder encoder = bench.encoder;
  encoder.end_token = std::nullopt;
  const auto part = TokenCache(encoder, bench.options()).open(*as_text_file(bench.source), {});
  CHECK(part->tokens().size() == 6);
  CHECK(part->documents() == 3);
}

TEST_CASE("Every damaged byte and every wrong length of a cache file is noticed and mended") {
  Bench bench;
  bench.tokens();
  const std::filesystem::path file = bench.cached().at(0);
  const std::string good = content_of(file);
  std::vector<std::string> damaged = {"", good + '\0', good + good};
  for (std::size_t i = 0; i < good.size(); ++i) {
    damaged.push_back(good);
    damaged.back()[i] = static_cast<char>(damaged.back()[i] ^ 0x10);
    damaged.push_back(good.substr(0, i));
  }
  for (const std::string& bytes : damaged) {
    overwrite(file, bytes);
    const int calls = bench.calls();
    bench.notices.clear();
    REQUIRE(bench.tokens() == their_tokens);
    REQUIRE(bench.calls() == calls + 3);
    REQUIRE(bench.notices.size() == 1);
    REQUIRE(content_of(file) == good);
  }
}

TEST_CASE("The notice says what was wrong with a cache file") {
  Bench bench;
  bench.tokens();
  const std::filesystem::path file = bench.cached().at(0);
  const std::string good = content_of(file);
  const auto notice_after = [&](std::size_t at, char value) {
    std::string bytes = good;
    bytes[at] = value;
    overwrite(file, bytes);
    bench.tokens();
    return bench.notices.back();
  };
  CHECK_THAT(notice_after(0, 'X'), ContainsSubstring("does not begin as such a file"));
  CHECK_THAT(notice_after(8, 99), ContainsSubstring("format version 99"));
  CHECK_THAT(notice_after(40, 99), ContainsSubstring("checksum of its header"));
  CHECK_THAT(notice_after(good.size() - 1, 99), ContainsSubstring("checksum of its tokens"));
  CHECK_THAT(bench.notices.back(), ContainsSubstring(file.string()));
}

TEST_CASE("A file with good checksums and impossible documents is refused") {
  const TemporaryDirectory in;
  const PartDescription description{};
  TokenPart(description, {1, 2, 3}, {2, 2, 3}).write(in / "overlap");
  CHECK_THAT(error_of<StorageError>([&] { TokenPart(in / "overlap", {}); }),
             ContainsSubstring("documents overlap"));
  TokenPart(description, {1, 2, 3}, {1, 2}).write(in / "short");
  CHECK_THAT(error_of<StorageError>([&] { TokenPart(in / "short", {}); }), ContainsSubstring("do not cover"));
}

TEST_CASE("A source that changes is tokenised anew") {
  Bench bench;
  bench.tokens();
  SECTION("by growing") {
    overwrite(bench.source, three_documents + "{\"text\":\"g\"}\n");
    CHECK(bench.tokens().size() == their_tokens.size() + 2);
  }
  SECTION("in its content, with size and time as before") {
    const auto time = std::filesystem::last_write_time(bench.source);
    std::string other = three_documents;
    other[9] = 'z';
    overwrite(bench.source, other);
    std::filesystem::last_write_time(bench.source, time);
    CHECK(bench.tokens().at(0) == 'z');
  }
  SECTION("in its time alone") {
    std::filesystem::last_write_time(bench.source,
                                     std::filesystem::last_write_time(bench.source) + std::chrono::hours(1));
    CHECK(bench.tokens() == their_tokens);
  }
  CHECK(bench.calls() >= 6);
  CHECK_THAT(bench.notices.at(0), ContainsSubstring("the text file has changed"));
  CHECK(bench.cached().size() == 1);
}

TEST_CASE("Another tokenizer, end token or field does not share cache files") {
  Bench bench;
  overwrite(bench.source, "{\"text\":\"abc\",\"other\":\"z\"}\n");
  bench.tokens();
  TextEncoder other_tokenizer = bench.encoder, other_end = bench.encoder;
  other_tokenizer.fingerprint = 8;
  other_end.end_token = 1001;
  TokenCacheOptions other_field = bench.options();
  other_field.text_field = "other";
  const TextFile file = *as_text_file(bench.source);
  CHECK(TokenCache(other_tokenizer, bench.options()).open(file, {})->tokens().size() == 4);
  CHECK(TokenCache(other_end, bench.options()).open(file, {})->tokens()[3] == 1001);
  CHECK(TokenCache(bench.encoder, other_field).open(file, {})->tokens()[0] == 'z');
  CHECK(bench.calls() == 4);
  CHECK(bench.cached().size() == 4);
  CHECK(bench.notices.empty());
}

TEST_CASE("A cache file under the name of another is not taken for it") {
  Bench bench;
  bench.tokens();
  const std::filesystem::path file = bench.cached().at(0);
  TextEncoder other = bench.encoder;
  other.fingerprint = 8;
  TokenCache(other, bench.options()).open(*as_text_file(bench.source), {});
  for (const auto& path : bench.cached())
    if (path != file)
      std::filesystem::copy_file(path, file, std::filesystem::copy_options::overwrite_existing);
  CHECK(bench.tokens() == their_tokens);
  CHECK_THAT(bench.notices.at(0), ContainsSubstring("another tokenizer"));
}

TEST_CASE("A large file comes in parts, and joined they are the whole") {
  const TemporaryDirectory in;
  std::mt19937_64 random(5);
  const std::string lines = jsonl(random, 200, 400);
  for (const auto& path : {in.file("a.jsonl", lines), in.file("b.jsonl.gz", gzip(lines))}) {
    const TextFile file = *as_text_file(path);
    const ByteEncoder encoder;
    const auto whole = TokenCache(encoder, {.folder = {}}).open(file, {});
    for (int process = 0; process < 2; ++process) {
      TokenCache cache(encoder, {.folder = in / "cache", .part_bytes = 3000});
      std::vector<std::int32_t> joined;
      std::size_t parts = 0, documents = 0;
      for (Place place; ++parts < 100;) {
        const auto part = cache.open(file, place);
        joined.insert(joined.end(), part->tokens().begin(), part->tokens().end());
        documents += part->documents();
        CHECK(part->description().key.begin.document <= documents);
        place = part->description().end;
        if (part->description().last == 1) break;
      }
      CHECK(parts > 8);
      CHECK(documents == whole->documents());
      CHECK(std::equal(joined.begin(), joined.end(), whole->tokens().begin(), whole->tokens().end()));
      CHECK(encoder.count->calls == 2 * static_cast<int>(documents));
    }
  }
}

TEST_CASE("The first part of a large file is there before the rest was read") {
  const TemporaryDirectory in;
  const auto path = in.file("a.jsonl", "{\"text\":\"abc\"}\nbroken line far behind\n");
  const ByteEncoder encoder;
  TokenCache cache(encoder, {.folder = in / "cache", .part_bytes = 3});
  const auto first = cache.open(*as_text_file(path), {});
  CHECK(first->tokens().size() == 4);
  CHECK_THAT(error_of<InputError>([&] { cache.open(*as_text_file(path), first->description().end); }),
             ContainsSubstring("line 2"));
}

TEST_CASE("Parts of several files may be asked for in turns, and one part again") {
  const TemporaryDirectory in;
  const TextFile a = *as_text_file(in.file("a.jsonl", "{\"text\":\"ab\"}\n{\"text\":\"cd\"}\n"));
  const TextFile b = *as_text_file(in.file("b.jsonl", "{\"text\":\"ef\"}\n{\"text\":\"gh\"}\n"));
  const Place second{.byte = 14, .line = 1, .document = 1};
  for (const std::filesystem::path& folder : {std::filesystem::path(), in / "cache"}) {
    TokenCache cache(ByteEncoder(), {.folder = folder, .part_bytes = 1});
    const auto first_letter = [&](const TextFile& file, const Place& place) {
      return static_cast<char>(cache.open(file, place)->tokens()[0]);
    };
    CHECK(first_letter(a, {}) == 'a');
    CHECK(first_letter(b, {}) == 'e');
    CHECK(first_letter(b, second) == 'g');
    CHECK(first_letter(b, {}) == 'e');
    CHECK(first_letter(a, second) == 'c');
  }
}

TEST_CASE("A folder that cannot be written costs a warning, not the run") {
  Bench bench;
  bench.in.file("occupied", "a file where the folder should be");
  TokenCacheOptions options = bench.options();
  options.folder = bench.in / "occupied";
  TokenCache cache(bench.encoder, options);
  const TextFile file = *as_text_file(bench.source);
  CHECK(cache.open(file, {})->tokens().size() == their_tokens.size());
  CHECK(cache.open(file, {})->tokens().size() == their_tokens.size());
  CHECK(bench.calls() == 3);
  REQUIRE(bench.notices.size() == 1);
  CHECK_THAT(bench.notices[0], ContainsSubstring("cannot be written"));
}

TEST_CASE("Memory notices changed sources as the folder does") {
  Bench bench;
  TokenCache cache(bench.encoder, {.folder = {}});
  const TextFile file = *as_text_file(bench.source);
  cache.open(file, {});
  overwrite(bench.source, "{\"text\":\"new\"}\n");
  CHECK(cache.open(file, {})->tokens().size() == 4);
}

TEST_CASE("What killed processes left behind does no harm and goes after a day") {
  Bench bench;
  bench.tokens();
  const std::filesystem::path file = bench.cached().at(0);
  const std::string good = content_of(file);
  std::filesystem::remove(file);
  const std::filesystem::path fresh = file.string() + ".1-2.unfinished",
                              old = file.string() + ".3-4.unfinished";
  overwrite(fresh, good.substr(0, good.size() / 2));
  overwrite(old, good.substr(0, 10));
  std::filesystem::last_write_time(old,
                                   std::filesystem::file_time_type::clock::now() - std::chrono::hours(25));
  CHECK(bench.tokens() == their_tokens);
  CHECK(bench.notices.empty());
  CHECK(bench.cached() == std::vector{file, fresh});
}

TEST_CASE("A process killed at any moment of writing leaves a cache that works") {
  Bench bench;
  std::mt19937_64 random(6);
  overwrite(bench.source, jsonl(random, 3000, 500));
  const std::vector<std::int32_t> expected = [&] {
    const auto part = TokenCache(bench.encoder, {.folder = {}}).open(*as_text_file(bench.source), {});
    return std::vector<std::int32_t>(part->tokens().begin(), part->tokens().end());
  }();
  for (int microseconds : {0, 500, 2000, 5000, 10000, 20000, 40000}) {
    std::filesystem::remove_all(bench.in / "cache");
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(60);  // should this process be gone before it can kill
      for (;;) {
        std::error_code ignored;
        TokenCache(bench.encoder, {.folder = bench.in / "cache"}).open(*as_text_file(bench.source), {});
        std::filesystem::remove_all(bench.in / "cache", ignored);
      }
    }
    ::usleep(static_cast<useconds_t>(microseconds));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    REQUIRE(bench.tokens() == expected);
    REQUIRE(bench.notices.empty());
  }
}

TEST_CASE("Processes that fill a cache at the same time do not disturb each other") {
  Bench bench;
  std::mt19937_64 random(7);
  overwrite(bench.source, jsonl(random, 500, 500));
  const auto expected = TokenCache(bench.encoder, {.folder = {}}).open(*as_text_file(bench.source), {});
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    bool same = true;
    for (int round = 0; round < 20 && same; ++round) {
      std::error_code ignored;
      const auto part = bench.open(bench.options());
      same = std::equal(part->tokens().begin(), part->tokens().end(), expected->tokens().begin(),
                        expected->tokens().end());
      for (const auto& entry : std::filesystem::directory_iterator(bench.in / "cache", ignored))
        if (entry.path().extension() == ".tokens") std::filesystem::remove(entry.path(), ignored);
    }
    ::_exit(same && bench.notices.empty() ? 0 : 1);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  }
}

TEST_CASE("The cache lies where the environment says") {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string cache_before = cache != nullptr ? cache : "", home_before = home != nullptr ? home : "";
  ::setenv("HOME", "/home/someone", 1);
  ::setenv("XDG_CACHE_HOME", "/elsewhere", 1);
  CHECK(default_cache_folder() == "/elsewhere/parscale");
  ::setenv("XDG_CACHE_HOME", "relative/paths/are/ignored", 1);
  CHECK(default_cache_folder() == "/home/someone/.cache/parscale");
  ::unsetenv("XDG_CACHE_HOME");
  CHECK(default_cache_folder() == "/home/someone/.cache/parscale");
  ::unsetenv("HOME");
  CHECK(default_cache_folder().empty());
  if (cache != nullptr) ::setenv("XDG_CACHE_HOME", cache_before.c_str(), 1);
  if (home != nullptr) ::setenv("HOME", home_before.c_str(), 1);
}
