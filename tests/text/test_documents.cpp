#include <parscale/io/documents.hpp>
#include <vector>

#include "corpus.hpp"

using namespace parscale;
using namespace parscale::io;
using namespace parscale::test;

namespace {

using Texts = std::vector<std::string>;

Texts documents_of(const std::filesystem::path& path, const std::string& field = "text",
                   const Place& from = {}) {
  DocumentReader reader(*as_text_file(path), field, from);
  Texts texts;
  for (std::string text; reader.next(text);) texts.push_back(text);
  return texts;
}

std::string failure_of(const std::filesystem::path& path) {
  return error_of<InputError>([&] { documents_of(path); });
}

/// Text large enough to leave every buffer several times.
std::string long_text() {
  std::mt19937_64 random(1);
  return letters(random, 700'001);
}

}  // namespace

TEST_CASE("A .txt file is one document, as it is") {
  const TemporaryDirectory in;
  CHECK(documents_of(in.file("a.txt", " one\r\ntwo\n\nthree\n")) == Texts{" one\r\ntwo\n\nthree\n"});
  CHECK(documents_of(in.file("long.txt", long_text())) == Texts{long_text()});
}

TEST_CASE("A .jsonl file is a document a line") {
  const TemporaryDirectory in;
  CHECK(documents_of(in.file("a.jsonl", R"({"text": "one\ntwo", "meta": {"n": [1, 2]}})"
                                        "\n"
                                        R"({"id": 7, "text": "dr\u00fcben 😀"})"
                                        "\n")) == Texts{"one\ntwo", "drüben 😀"});
}

TEST_CASE("The last line of a .jsonl file may lack its line feed, and lines may end as on Windows") {
  const TemporaryDirectory in;
  CHECK(documents_of(in.file("one.jsonl", R"({"text":"x"})")) == Texts{"x"});
  CHECK(documents_of(in.file("a.jsonl", "{\"text\":\"x\"}\r\n\r\n{\"text\":\"y\"}\r\n")) == Texts{"x", "y"});
}

TEST_CASE("Empty files, blank lines and empty documents are left out") {
  const TemporaryDirectory in;
  CHECK(documents_of(in.file("a.txt", "")).empty());
  CHECK(documents_of(in.file("a.jsonl", "")).empty());
  CHECK(documents_of(in.file("b.jsonl", "\n  \n")).empty());
  CHECK(documents_of(in.file("c.jsonl", "{\"text\":\"\"}\n\n{\"text\":\"y\"}\n")) == Texts{"y"});
  for (const char* name : {"a.txt.gz", "a.txt.zst", "a.jsonl.gz"})
    CHECK(documents_of(in.file(name, "")).empty());
}

TEST_CASE("A byte order mark is not part of the text") {
  const TemporaryDirectory in;
  CHECK(documents_of(in.file("a.txt", "\xef\xbb\xbfx")) == Texts{"x"});
  CHECK(documents_of(in.file("a.jsonl", "\xef\xbb\xbf{\"text\":\"x\"}\n{\"text\":\"\xef\xbb\xbfy\"}")) ==
        Texts{"x", "\xef\xbb\xbfy"});
}

TEST_CASE("Another field may hold the text") {
  const TemporaryDirectory in;
  CHECK(documents_of(in.file("a.jsonl", R"({"text":"no","content":"yes"})"), "content") == Texts{"yes"});
}

TEST_CASE("Packed files give what plain files give") {
  const TemporaryDirectory in;
  std::mt19937_64 random(2);
  const std::string lines = jsonl(random, 300, 5000) + "{\"text\":\"" + long_text() + "\"}\n";
  const Texts plain = documents_of(in.file("p.jsonl", lines));
  CHECK(plain.back() == long_text());
  CHECK(documents_of(in.file("a.jsonl.gz", gzip(lines))) == plain);
  CHECK(documents_of(in.file("a.jsonl.zst", zstd(lines))) == plain);
  CHECK(documents_of(in.file("t.txt.gz", gzip(lines))) == Texts{lines});
  CHECK(documents_of(in.file("t.txt.zst", zstd(lines))) == Texts{lines});
}

TEST_CASE("Packed files of several members or frames are read to the end") {
  const TemporaryDirectory in;
  CHECK(documents_of(in.file("a.txt.gz", gzip("one ") + gzip("") + gzip("two"))) == Texts{"one two"});
  CHECK(documents_of(in.file("a.txt.zst", zstd("one ") + zstd("") + zstd("two"))) == Texts{"one two"});
}

TEST_CASE("Well-packed text that unpacks a thousandfold is read in pieces") {
  const TemporaryDirectory in;
  const std::string spaces(5'000'000, 'x');
  CHECK(documents_of(in.file("a.txt.gz", gzip(spaces))) == Texts{spaces});
  CHECK(documents_of(in.file("a.txt.zst", zstd(spaces))) == Texts{spaces});
}

TEST_CASE("Packed files cut anywhere are errors") {
  const TemporaryDirectory in;
  std::mt19937_64 random(3);
  const std::string text = letters(random, 300);
  for (const auto& [name, packed] : {std::pair{"a.txt.gz", gzip(text)}, std::pair{"a.txt.zst", zstd(text)}})
    for (std::size_t length = 1; length < packed.size(); ++length) {
      INFO(name << " cut to " << length << " of " << packed.size() << " bytes");
      REQUIRE_THAT(failure_of(in.file(name, packed.substr(0, length))),
                   ContainsSubstring("ends in the middle"));
    }
}

TEST_CASE("Damage in packed files is an error with file and position") {
  const TemporaryDirectory in;
  std::string gz = gzip(long_text()), zst = zstd(long_text());
  gz[gz.size() - 5] = static_cast<char>(gz[gz.size() - 5] ^ 1);      // in the checksum
  zst[zst.size() / 2] = static_cast<char>(zst[zst.size() / 2] ^ 1);  // in the data
  const std::string gzip_message = failure_of(in.file("a.txt.gz", gz));
  CHECK_THAT(gzip_message, ContainsSubstring("damaged gzip data"));
  CHECK_THAT(gzip_message, ContainsSubstring("a.txt.gz, packed byte " + std::to_string(gz.size() - 4)));
  const std::string zstd_message = failure_of(in.file("a.txt.zst", zst));
  CHECK_THAT(zstd_message, ContainsSubstring("damaged zstd data"));
  CHECK_THAT(zstd_message, ContainsSubstring("a.txt.zst, packed byte "));
}

TEST_CASE("Packed files followed by something else are errors") {
  const TemporaryDirectory in;
  CHECK_THAT(failure_of(in.file("a.txt.gz", gzip("x") + "garbage after it")),
             ContainsSubstring("damaged gzip"));
  CHECK_THAT(failure_of(in.file("a.txt.zst", zstd("x") + "garbage after it")),
             ContainsSubstring("damaged zstd"));
}

TEST_CASE("A file that only claims to be packed is an error") {
  const TemporaryDirectory in;
  CHECK_THAT(failure_of(in.file("a.txt.gz", "plain text")), ContainsSubstring("damaged gzip"));
  CHECK_THAT(failure_of(in.file("a.txt.zst", "plain text")), ContainsSubstring("damaged zstd"));
}

TEST_CASE("A line that is no JSON is an error with file and line") {
  const TemporaryDirectory in;
  const std::string message = failure_of(in.file("a.jsonl", "{\"text\":\"x\"}\n\n{\"text\":\"y\"\n"));
  CHECK_THAT(message, ContainsSubstring("not valid JSON"));
  CHECK_THAT(message, ContainsSubstring("a.jsonl, line 3"));
}

TEST_CASE("A line that is JSON but no object is an error") {
  const TemporaryDirectory in;
  CHECK_THAT(failure_of(in.file("a.jsonl", "[1]\n")), ContainsSubstring("it is of type array"));
}

TEST_CASE("A line without the field is an error that names its fields") {
  const TemporaryDirectory in;
  const std::string message = failure_of(in.file("a.jsonl", R"({"content": "x", "id": 1})"));
  CHECK_THAT(message, ContainsSubstring("its fields are content, id"));
  CHECK_THAT(message, ContainsSubstring("training.text_field"));
}

TEST_CASE("A field that is no text is an error") {
  const TemporaryDirectory in;
  CHECK_THAT(failure_of(in.file("a.jsonl", R"({"text": null})")), ContainsSubstring("it is of type null"));
}

TEST_CASE("Invalid UTF-8 is an error with its place") {
  const TemporaryDirectory in;
  CHECK_THAT(failure_of(in.file("a.txt", "good\nb\xff")), ContainsSubstring("a.txt, line 2, byte 6"));
  CHECK_THAT(failure_of(in.file("b.jsonl", "{\"text\":\"x\"}\n{\"text\":\"\xc3(\"}")),
             ContainsSubstring("b.jsonl, line 2"));
}

TEST_CASE("UTF-16 is recognised") {
  const TemporaryDirectory in;
  CHECK_THAT(failure_of(in.file("a.txt", std::string("\xff\xfe"
                                                     "h\0i\0",
                                                     6))),
             ContainsSubstring("looks like UTF-16"));
}

TEST_CASE("A reader goes on where another one stopped, in plain and packed files") {
  const TemporaryDirectory in;
  std::mt19937_64 random(4);
  const std::string lines = jsonl(random, 40, 9000);
  for (const auto& path :
       {in.file("a.jsonl", lines), in.file("b.jsonl.gz", gzip(lines)), in.file("c.jsonl.zst", zstd(lines))}) {
    const Texts all = documents_of(path);
    DocumentReader reader(*as_text_file(path), "text");
    std::string text;
    for (std::size_t i = 0; i < all.size(); ++i) {
      CHECK(documents_of(path, "text", reader.place()) ==
            Texts(all.begin() + static_cast<std::ptrdiff_t>(i), all.end()));
      REQUIRE(reader.next(text));
      CHECK(reader.place().document == i + 1);
    }
    CHECK_FALSE(reader.next(text));
    CHECK(reader.place().line == 40);
    CHECK(documents_of(path, "text", reader.place()).empty());
  }
}

TEST_CASE("Errors of a reader that went on count lines from the start of the file") {
  const TemporaryDirectory in;
  const auto path = in.file("a.jsonl", "{\"text\":\"x\"}\n{\"text\":\"y\"}\nbroken\n");
  const Place behind_first{.byte = 13, .line = 1, .document = 1};
  CHECK_THAT(error_of<InputError>([&] { documents_of(path, "text", behind_first); }),
             ContainsSubstring("line 3"));
}

TEST_CASE("A missing file is an error with its path") {
  CHECK_THAT(failure_of("/no/such/file.txt"), ContainsSubstring("/no/such/file.txt"));
}
