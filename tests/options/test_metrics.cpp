/// metrics.jsonl through starts, kills and resumes.
#include <common/metrics.hpp>

#include "given.hpp"

using namespace parscale;
using namespace parscale::program;

namespace {

std::vector<Index> steps_in(const std::filesystem::path& path) {
  std::vector<Index> steps;
  for (const io::Json& line : read_metrics(path)) steps.push_back(line["step"].get<Index>());
  return steps;
}

void append_steps(MetricsFile& file, Index first, Index last) {
  for (Index step = first; step <= last; ++step) file.append({{"step", step}, {"loss", 1.0}});
}

}  // namespace

TEST_CASE("A run writes one valid line a step") {
  const TemporaryFolder folder;
  MetricsFile file = MetricsFile::start(folder.path() / "m.jsonl");
  append_steps(file, 1, 3);
  CHECK(steps_in(folder.path() / "m.jsonl") == std::vector<Index>{1, 2, 3});
}

TEST_CASE("Numbers that are not finite and texts that are not UTF-8 leave valid JSON") {
  const TemporaryFolder folder;
  MetricsFile file = MetricsFile::start(folder.path() / "m.jsonl");
  file.append({{"step", 1}, {"loss", std::nan("")}, {"name", "a\xff\n"}});
  const auto lines = read_metrics(folder.path() / "m.jsonl");
  REQUIRE(lines.size() == 1);
  CHECK(lines[0]["loss"].is_null());
}

TEST_CASE("A new run begins an empty file") {
  const TemporaryFolder folder;
  const auto path = folder.file("m.jsonl", "{\"step\":1}\n");
  MetricsFile::start(path);
  CHECK(std::filesystem::file_size(path) == 0);
}

TEST_CASE("A resumed run drops the lines of later steps and goes on") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "m.jsonl";
  {
    MetricsFile file = MetricsFile::start(path);
    append_steps(file, 1, 9);
  }
  MetricsFile file = MetricsFile::resume(path, 5);
  append_steps(file, 6, 7);
  CHECK(steps_in(path) == std::vector<Index>{1, 2, 3, 4, 5, 6, 7});
  CHECK_FALSE(std::filesystem::exists(folder.path() / "m.jsonl.new"));
}

TEST_CASE("A half-written last line is dropped by the resume and does not hurt reading") {
  const TemporaryFolder folder;
  const auto path = folder.file("m.jsonl", "{\"step\":1}\n{\"step\":2,\"lo");
  CHECK(steps_in(path) == std::vector<Index>{1});
  MetricsFile file = MetricsFile::resume(path, 8);
  append_steps(file, 2, 2);
  CHECK(steps_in(path) == std::vector<Index>{1, 2});
}

TEST_CASE("A last line that lacks only its end is kept") {
  const TemporaryFolder folder;
  const auto path = folder.file("m.jsonl", "{\"step\":1}\n{\"step\":2}");
  MetricsFile file = MetricsFile::resume(path, 8);
  append_steps(file, 3, 3);
  CHECK(steps_in(path) == std::vector<Index>{1, 2, 3});
}

TEST_CASE("A resume without a file begins one") {
  const TemporaryFolder folder;
  MetricsFile file = MetricsFile::resume(folder.path() / "m.jsonl", 5);
  append_steps(file, 6, 6);
  CHECK(steps_in(folder.path() / "m.jsonl") == std::vector<Index>{6});
}

TEST_CASE("A damaged line in the middle is an input error with its number") {
  const TemporaryFolder folder;
  const auto path = folder.file("m.jsonl", "{\"step\":1}\nxyz\n{\"step\":3}\n");
  try {
    read_metrics(path);
    FAIL("no InputError was thrown");
  } catch (const InputError& error) {
    CHECK(contains(error.what(), "m.jsonl, line 2"));
  }
}

TEST_CASE("Metrics in a folder that does not exist are a storage error") {
  const TemporaryFolder folder;
  CHECK_THROWS_AS(MetricsFile::start(folder.path() / "none" / "m.jsonl"), StorageError);
}

TEST_CASE("A full disk under the metrics is a storage error") {
  if (!std::filesystem::exists("/dev/full")) SKIP("this system has no /dev/full");
  const TemporaryFolder folder;
  const auto path = folder.path() / "m.jsonl";
  std::filesystem::create_symlink("/dev/full", folder.path() / "m.jsonl.new");
  try {
    MetricsFile::resume(folder.file("m.jsonl", "{\"step\":1}\n"), 1);
    FAIL("no StorageError was thrown");
  } catch (const StorageError& error) {
    CHECK(contains(error.what(), "disk is full"));
  }
  CHECK(steps_in(path) == std::vector<Index>{1});
}
