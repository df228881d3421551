#include <parscale/io/text_files.hpp>
#include <vector>

#include "io/support.hpp"

using namespace parscale;
using namespace parscale::io;
using namespace parscale::test;

namespace {

/// File names that the sources lead to, in their order, relative to the directory.
std::vector<std::string> found(const TemporaryDirectory& in, const std::vector<std::string>& patterns) {
  std::vector<std::string> sources, names;
  for (const std::string& pattern : patterns) sources.push_back((in / pattern).string());
  for (const TextFile& file : find_text_files(sources))
    names.push_back(file.path.lexically_normal().lexically_relative(in.path()).string());
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("The ending of a name says how a file is read") {
  CHECK(as_text_file("a/b.txt")->compression == Compression::none);
  CHECK_FALSE(as_text_file("a/b.txt")->one_document_a_line);
  CHECK(as_text_file("b.jsonl")->one_document_a_line);
  CHECK(as_text_file("b.jsonl.gz")->one_document_a_line);
  CHECK(as_text_file("b.jsonl.gz")->compression == Compression::gzip);
  CHECK(as_text_file("b.txt.zst")->compression == Compression::zstd);
  for (const char* other : {"b", "b.gz", "b.json", "b.md.gz", "b.txt.bz2", "txt", "b.parquet"})
    CHECK_FALSE(as_text_file(other).has_value());
}

TEST_CASE("A folder is searched to its depth, sorted, without hidden and other files") {
  const TemporaryDirectory in;
  for (const char* name : {"d/z.txt", "d/a.jsonl.zst", "d/sub/deep/m.txt.gz", "d/notes.md", "d/.hidden.txt",
                           "d/.git/x.txt", "outside.txt"})
    in.file(name, "x");
  CHECK(found(in, {"d"}) == Names{"d/a.jsonl.zst", "d/sub/deep/m.txt.gz", "d/z.txt"});
}

TEST_CASE("A glob may lead to files and folders, and braces choose") {
  const TemporaryDirectory in;
  for (const char* name : {"p1.jsonl", "p2.jsonl", "p3.txt", "q/inside.txt", "p4.md"}) in.file(name, "x");
  CHECK(found(in, {"p*.jsonl"}) == Names{"p1.jsonl", "p2.jsonl"});
  CHECK(found(in, {"*"}) == Names{"p1.jsonl", "p2.jsonl", "p3.txt", "q/inside.txt"});
  CHECK(found(in, {"{p3,p1}.*"}) == Names{"p1.jsonl", "p3.txt"});
}

TEST_CASE("Several sources keep their order and give each file once") {
  const TemporaryDirectory in;
  for (const char* name : {"a.txt", "b.txt", "c.txt"}) in.file(name, "x");
  CHECK(found(in, {"c.txt", "./a.txt", "*.txt"}) == Names{"c.txt", "a.txt", "b.txt"});
}

TEST_CASE("A file whose name looks like a glob is found by its name") {
  const TemporaryDirectory in;
  in.file("part[1].txt", "x");
  CHECK(found(in, {"part[1].txt"}) == Names{"part[1].txt"});
}

TEST_CASE("Links to files count as files, broken links in a folder do not") {
  const TemporaryDirectory in;
  in.file("blobs/0123abcd", "x");
  std::filesystem::create_directory(in / "snapshot");
  std::filesystem::create_symlink(in / "blobs/0123abcd", in / "snapshot/train.txt");
  std::filesystem::create_symlink(in / "nowhere", in / "snapshot/lost.txt");
  CHECK(found(in, {"snapshot"}) == Names{"snapshot/train.txt"});
}

TEST_CASE("Names are unique in a data set and do not depend on packing") {
  const TemporaryDirectory in;
  for (const char* name : {"a/part.txt.gz", "b/part.txt", "c/part.txt.zst", "c/other.txt"})
    in.file(name, "x");
  Names names;
  for (const TextFile& file : find_text_files({in.path().string()})) names.push_back(file.name);
  CHECK(names == Names{"part.txt", "part.txt (2)", "other.txt", "part.txt (3)"});
}

TEST_CASE("A missing path is an error that says what would be fine") {
  const TemporaryDirectory in;
  const std::string message = error_of<InputError>([&] { found(in, {"nothing.txt"}); });
  CHECK_THAT(message, ContainsSubstring("nothing.txt"));
  CHECK_THAT(message, ContainsSubstring("no file is there"));
  CHECK_THAT(message, ContainsSubstring(".jsonl.zst"));
}

TEST_CASE("A folder without text is an error that names the endings it has") {
  const TemporaryDirectory in;
  in.file("d/a.parquet", "x");
  in.file("d/b.parquet", "x");
  in.file("d/README", "x");
  const std::string message = error_of<InputError>([&] { found(in, {"d"}); });
  CHECK_THAT(message, ContainsSubstring("(no ending), .parquet"));
}

TEST_CASE("A file of another kind is an error that names its ending") {
  const TemporaryDirectory in;
  in.file("model.safetensors", "x");
  CHECK_THAT(error_of<InputError>([&] { found(in, {"model.safetensors"}); }),
             ContainsSubstring(".safetensors"));
}

TEST_CASE("One source without text is an error even when another has some") {
  const TemporaryDirectory in;
  in.file("a.txt", "x");
  CHECK_THAT(error_of<InputError>([&] { found(in, {"a.txt", "b/*.txt"}); }), ContainsSubstring("b/*.txt"));
}

TEST_CASE("An empty path is an error") {
  CHECK_THAT(error_of<InputError>([] { find_text_files({""}); }), ContainsSubstring("(an empty path)"));
}
