// Names, the order of age, which checkpoints stay, and what is tidied up.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "sample.hpp"

using namespace sample;
using Catch::Matchers::ContainsSubstring;
using Names = std::set<std::string>;

TEST_CASE("Names of checkpoints are taken apart") {
  const auto named = io::parse_checkpoint_name("checkpoint-20");
  REQUIRE(named->name.step == 20);
  REQUIRE_FALSE(named->name.rolling);
  REQUIRE(named->state.empty());
  const auto replaced = io::parse_checkpoint_name("checkpoint-rolling-7.replaced-12");
  REQUIRE(replaced->name.step == 7);
  REQUIRE(replaced->name.rolling);
  REQUIRE(replaced->state == "replaced");
  REQUIRE(io::CheckpointName{.step = 7, .rolling = true}.text() == "checkpoint-rolling-7");
}

TEST_CASE("Names that are not ours are left alone") {
  for (const char* name :
       {"", "checkpoint", "checkpoint-", "checkpoint-x", "checkpoint-007", "checkpoint-1e3", "checkpoint--1",
        "checkpoint-1.", "checkpoint-1.writing", "checkpoint-1.writing-", "checkpoint-1.writing-x",
        "checkpoint-1.backup-1", "checkpoint-1.removing-1.old", "checkpoint-99999999999999999999",
        "my-checkpoint-1", "checkpoint-rolling", "final"}) {
    INFO(name);
    REQUIRE_FALSE(io::parse_checkpoint_name(name));
  }
}

TEST_CASE("A directory without checkpoints, or no directory at all, has no checkpoint") {
  const TemporaryDirectory directory;
  fs::create_directory(directory.path() / "logs");
  REQUIRE_FALSE(io::latest_good_checkpoint(directory.path()));
  REQUIRE_FALSE(io::latest_good_checkpoint(directory.path() / "missing"));
}

TEST_CASE("A file in place of the output directory is a storage error") {
  const TemporaryDirectory directory;
  write_text(directory.path() / "output", "");
  REQUIRE_THROWS_AS(io::find_checkpoints(directory.path() / "output"), parscale::StorageError);
}

TEST_CASE("The newest checkpoint is the one written last, whatever its step or kind") {
  const TemporaryDirectory directory(fast_directory());
  save(directory.path(), 200);
  save(directory.path(), 90, {.rolling = true});
  save(directory.path(), 100);
  std::vector<std::string> names;
  for (const auto& found : io::find_checkpoints(directory.path())) names.push_back(found.path.filename());
  REQUIRE(names == std::vector<std::string>{"checkpoint-100", "checkpoint-rolling-90", "checkpoint-200"});
}

TEST_CASE("A clock that was set back does not make a new checkpoint an old one") {
  const TemporaryDirectory directory(fast_directory());
  const auto future = save(directory.path(), 1);
  auto manifest = io::verify_checkpoint(future).manifest.value();
  manifest.written += Index{1'000'000} * 60 * 60 * 24 * 365;
  write_text(future / "manifest.json", io::text_of(manifest));
  save(directory.path(), 2);
  REQUIRE(good_step(directory.path()) == 2);
}

TEST_CASE("All checkpoints stay without a limit") {
  const TemporaryDirectory directory(fast_directory());
  for (Index step : {1, 2, 3, 4}) save(directory.path(), step);
  REQUIRE(names_in(directory.path()).size() == 4);
}

TEST_CASE("The limit keeps the newest checkpoints of each kind") {
  const TemporaryDirectory directory(fast_directory());
  for (Index step : {1, 2, 3}) save(directory.path(), step);
  for (Index step : {2, 4}) save(directory.path(), step, {.rolling = true});
  save(directory.path(), 5, {.keep = 2});
  REQUIRE(names_in(directory.path()) == Names{"checkpoint-3", "checkpoint-5", "checkpoint-rolling-4"});
}

TEST_CASE("A damaged checkpoint does not take the place of a good one under the limit") {
  const TemporaryDirectory directory(fast_directory());
  save(directory.path(), 1);
  fs::resize_file(save(directory.path(), 2) / "model.safetensors", 10);
  save(directory.path(), 3, {.keep = 2});
  REQUIRE(names_in(directory.path()) == Names{"checkpoint-1", "checkpoint-2", "checkpoint-3"});
  save(directory.path(), 4, {.keep = 2});
  REQUIRE(names_in(directory.path()) == Names{"checkpoint-3", "checkpoint-4"});
}

TEST_CASE("The limit never deletes what parscale did not write") {
  const TemporaryDirectory directory(fast_directory());
  fs::create_directory(directory.path() / "checkpoint-1");
  write_text(directory.path() / "checkpoint-1" / "pytorch_model.bin", "precious");
  fs::create_directory(directory.path() / "checkpoint-best");
  save(directory.path(), 2, {.keep = 1});
  save(directory.path(), 3, {.keep = 1});
  REQUIRE(names_in(directory.path()) == Names{"checkpoint-1", "checkpoint-3", "checkpoint-best"});
}

TEST_CASE("Another program's directory of the same name is kept aside") {
  const TemporaryDirectory directory(fast_directory());
  fs::create_directory(directory.path() / "checkpoint-2");
  write_text(directory.path() / "checkpoint-2" / "pytorch_model.bin", "precious");
  save(directory.path(), 2, {.keep = 1});
  REQUIRE(good_step(directory.path()) == 2);
  io::tidy_checkpoints(directory.path());
  REQUIRE(io::read_file(directory.path() / "checkpoint-2.foreign-1" / "pytorch_model.bin") == "precious");
}

TEST_CASE("A checkpoint saved again at the same step replaces the old one") {
  const TemporaryDirectory directory(fast_directory());
  const auto path = save(directory.path(), 2);
  const Index before = io::verify_checkpoint(path).manifest->written;
  save(directory.path(), 2, {.keep = 1});
  REQUIRE(io::verify_checkpoint(path).manifest->written > before);
  REQUIRE(names_in(directory.path()) == Names{"checkpoint-2"});
}

TEST_CASE("Removing the rolling checkpoint leaves the regular ones") {
  const TemporaryDirectory directory(fast_directory());
  save(directory.path(), 1);
  save(directory.path(), 2, {.rolling = true});
  io::remove_rolling_checkpoints(directory.path());
  REQUIRE(names_in(directory.path()) == Names{"checkpoint-1"});
}

TEST_CASE("Tidying up removes what a kill left and nothing else") {
  const TemporaryDirectory directory(fast_directory());
  save(directory.path(), 1);
  for (const char* name :
       {"checkpoint-2.writing-1", "checkpoint-0.removing-3", "checkpoint-rolling-5.writing-1",
        "checkpoint-3.writing-x", "other.writing-1", "checkpoint-best.writing-1"}) {
    fs::create_directory(directory.path() / name);
    write_text(directory.path() / name / "file", "content");
  }
  const auto leftovers = io::tidy_checkpoints(directory.path());
  REQUIRE(leftovers.removed.size() == 3);
  REQUIRE(leftovers.restored.empty());
  REQUIRE(names_in(directory.path()) ==
          Names{"checkpoint-1", "checkpoint-3.writing-x", "other.writing-1", "checkpoint-best.writing-1"});
}

TEST_CASE("Tidying up gives a checkpoint its name back when its successor never came") {
  const TemporaryDirectory directory(fast_directory());
  fs::rename(save(directory.path(), 1), directory.path() / "checkpoint-1.replaced-1");
  REQUIRE(good_step(directory.path()) == 1);
  const auto leftovers = io::tidy_checkpoints(directory.path());
  REQUIRE(leftovers.restored.size() == 1);
  REQUIRE(names_in(directory.path()) == Names{"checkpoint-1"});
}

TEST_CASE("Tidying up keeps a replaced checkpoint while its successor is damaged") {
  const TemporaryDirectory directory(fast_directory());
  fs::rename(save(directory.path(), 1), directory.path() / "checkpoint-1.replaced-1");
  flip_bit(save(directory.path(), 1) / "model.safetensors", 77, 0);
  io::tidy_checkpoints(directory.path());
  REQUIRE(good_step(directory.path()) == 1);
  REQUIRE(io::latest_good_checkpoint(directory.path())->skipped.size() == 1);
}

TEST_CASE("A writer that is given up leaves nothing behind") {
  const TemporaryDirectory directory;
  {
    io::CheckpointWriter writer(directory.path(), {.step = 1});
    writer.write("notes.json", [](const fs::path& path) { io::write_json(path, {{"a", 1}}); });
    REQUIRE(names_in(directory.path()) == Names{"checkpoint-1.writing-1"});
  }
  REQUIRE(names_in(directory.path()).empty());
}

TEST_CASE("Several writers may fill one checkpoint, and one of them commits") {
  const TemporaryDirectory directory;
  io::CheckpointWriter writer(directory.path(), {.step = 1});
  std::vector<io::ManifestEntry> entries;
  for (const char* part : {"part-0.json", "part-1.json"}) {
    io::write_json(writer.directory() / part, {{"part", part}});
    entries.push_back(io::entry_of(writer.directory() / part));
  }
  for (auto& entry : entries) writer.add(entry);
  const auto manifest = io::open_checkpoint(writer.commit({{"world", "2"}})).manifest;
  REQUIRE(manifest.files == entries);
  REQUIRE(manifest.metadata.at("world") == "2");
}

TEST_CASE("A file whose part was never written is found when the checkpoint is opened") {
  const TemporaryDirectory directory;
  io::CheckpointWriter writer(directory.path(), {.step = 1});
  REQUIRE_THROWS_AS(io::entry_of(writer.directory() / "part-0.json"), parscale::StorageError);
  writer.add({"part-0.json", {10, 0}});
  const auto path = writer.commit();
  REQUIRE_THROWS_WITH(io::open_checkpoint(path), ContainsSubstring("part-0.json is missing"));
}

TEST_CASE("A checkpoint refuses two files of one name") {
  const TemporaryDirectory directory;
  io::CheckpointWriter writer(directory.path(), {.step = 1});
  writer.add({"a.json", {}});
  REQUIRE_THROWS_AS(writer.add({"a.json", {}}), parscale::ConfigurationError);
}

TEST_CASE("A checkpoint refuses names that lead out of it or to the manifest") {
  const TemporaryDirectory directory;
  io::CheckpointWriter writer(directory.path(), {.step = 1});
  for (const char* name : {"", ".", "..", "../a", "a/b", "/a", "manifest.json"}) {
    INFO(name);
    REQUIRE_THROWS_AS(writer.add({name, {}}), parscale::ConfigurationError);
  }
}

TEST_CASE("A name that is taken by another unfinished directory is passed by") {
  const TemporaryDirectory directory;
  fs::create_directory(directory.path() / "checkpoint-1.writing-1");
  const io::CheckpointWriter writer(directory.path(), {.step = 1});
  REQUIRE(writer.directory().filename() == "checkpoint-1.writing-2");
}

TEST_CASE("Checkpoints are saved below a relative path") {
  const TemporaryDirectory directory;
  const fs::path before = fs::current_path();
  fs::current_path(directory.path());
  save("output", 1, {.keep = 1});
  save("output/", 2, {.keep = 1});
  save("", 3);
  const bool good = good_step("output") == 2 && good_step("") == 3;
  fs::current_path(before);
  REQUIRE(good);
}
