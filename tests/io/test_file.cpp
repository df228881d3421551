#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <parscale/io/file.hpp>
#include <utility>

#include "support.hpp"

using namespace parscale;
using namespace parscale::test;
using io::MappedFile;
using io::OutputFile;

namespace {

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace

TEST_CASE("A mapped file shows the bytes of the file") {
  TemporaryDirectory folder;
  const std::string content("a\0b\xff", 4);
  CHECK(text_of(MappedFile(folder.file("x", content))) == content);
}

TEST_CASE("An empty file can be mapped") {
  TemporaryDirectory folder;
  CHECK(MappedFile(folder.file("x", "")).bytes().empty());
}

TEST_CASE("A mapped file keeps its bytes when it is moved") {
  TemporaryDirectory folder;
  MappedFile first(folder.file("x", "first"));
  MappedFile second(folder.file("y", "second"));
  MappedFile third(std::move(first));
  CHECK(text_of(third) == "first");
  third = std::move(second);
  CHECK(text_of(third) == "second");
}

TEST_CASE("A missing file is an input error that says so") {
  TemporaryDirectory folder;
  const auto message = error_of<InputError>([&] { MappedFile(folder / "absent"); });
  CHECK_THAT(message, ContainsSubstring("does not exist") && ContainsSubstring("absent"));
  CHECK_THAT(error_of<InputError>([&] { io::read_file(folder / "absent"); }),
             ContainsSubstring("does not exist"));
}

TEST_CASE("A path through a file is a missing file") {
  TemporaryDirectory folder;
  const auto path = folder.file("x", "") / "y";
  CHECK_THAT(error_of<InputError>([&] { MappedFile{path}; }), ContainsSubstring("does not exist"));
}

TEST_CASE("A directory is not a file") {
  TemporaryDirectory folder;
  CHECK_THAT(error_of<InputError>([&] { MappedFile{folder.path()}; }),
             ContainsSubstring("this is a directory"));
  CHECK_THAT(error_of<InputError>([&] { io::read_file(folder.path()); }),
             ContainsSubstring("this is a directory"));
}

TEST_CASE("A file without permission is an input error with the system's words") {
  if (::geteuid() == 0) SKIP("root may read everything");
  TemporaryDirectory folder;
  const auto path = folder.file("x", "secret");
  std::filesystem::permissions(path, std::filesystem::perms::none);
  CHECK_THAT(error_of<InputError>([&] { MappedFile{path}; }), ContainsSubstring("Permission denied"));
}

TEST_CASE("A pipe cannot be mapped") {
  CHECK_THAT(error_of<InputError>([] { MappedFile{"/dev/null"}; }), ContainsSubstring("Only a regular file"));
}

TEST_CASE("A whole file is read, larger than one piece") {
  TemporaryDirectory folder;
  std::string content;
  for (int i = 0; i < 50000; ++i) content += std::to_string(i);
  CHECK(io::read_file(folder.file("x", content)) == content);
  CHECK(io::read_file("/dev/null").empty());
}

TEST_CASE("What is written can be read, and its size is known") {
  TemporaryDirectory folder;
  OutputFile out(folder / "x");
  out.write("hello ");
  out.write(std::as_bytes(std::span("world", 5)));
  CHECK(out.size() == 11);
  out.close();
  out.close();
  CHECK(io::read_file(folder / "x") == "hello world");
}

TEST_CASE("An output file replaces what was there") {
  TemporaryDirectory folder;
  OutputFile out(folder.file("x", "something long"));
  out.write("short");
  out.close();
  CHECK(io::read_file(folder / "x") == "short");
}

TEST_CASE("An output file in a missing folder is a storage error") {
  TemporaryDirectory folder;
  const auto message = error_of<StorageError>([&] { OutputFile(folder / "no/x"); });
  CHECK_THAT(message, ContainsSubstring("Writing failed") && ContainsSubstring("No such file"));
}

TEST_CASE("A full disk is a storage error that says so") {
  OutputFile out("/dev/full");
  CHECK_THAT(error_of<StorageError>([&] { out.write("x"); }), ContainsSubstring("The disk is full"));
}

TEST_CASE("A short write is continued until the system refuses") {
  TemporaryDirectory folder;
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = before;
  limit.rlim_cur = 1000;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  OutputFile out(folder / "x");
  const auto message = error_of<StorageError>([&] { out.write(std::string(1500, 'x')); });
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(out.size() == 1000);
  CHECK_THAT(message, ContainsSubstring("File too large"));
}

TEST_CASE("Writing to a pipe can be closed although pipes cannot be synced") {
  OutputFile out("/dev/null");
  out.write("x");
  CHECK_NOTHROW(out.close());
}

TEST_CASE("A directory can be synced, a missing one is a storage error") {
  TemporaryDirectory folder;
  CHECK_NOTHROW(io::sync_directory(folder.path()));
  CHECK_NOTHROW(io::sync_directory(""));
  CHECK_THAT(error_of<StorageError>([&] { io::sync_directory(folder / "absent"); }),
             ContainsSubstring("No such file"));
}
