// Every kind of damage is told apart, named, and costs only the damaged checkpoint.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <random>

#include "sample.hpp"
#include "traced_child.hpp"

using namespace sample;
using Catch::Matchers::ContainsSubstring;
using io::Damage;

namespace {

/// An older good checkpoint 1 and a newer checkpoint 2 to be damaged.
struct TwoCheckpoints {
  TwoCheckpoints() {
    save(directory.path(), 1);
    newer = save(directory.path(), 2);
  }

  /// Checkpoint 2 has exactly this damage to this file, and checkpoint 1 is found instead.
  void require(Damage damage, const std::string& file, const std::string& words) const {
    const io::Verdict verdict = io::verify_checkpoint(newer);
    REQUIRE(verdict.faults.size() == 1);
    INFO(verdict.text());
    REQUIRE(verdict.faults[0].damage == damage);
    REQUIRE(verdict.faults[0].file == file);
    REQUIRE_THAT(verdict.text(), ContainsSubstring(words));
    const auto latest = io::latest_good_checkpoint(directory.path());
    REQUIRE(latest->skipped.size() == 1);
    REQUIRE_THAT(latest->skipped[0].text(), ContainsSubstring("checkpoint-2: ") && ContainsSubstring(words));
    REQUIRE(good_step(directory.path()) == 1);
    REQUIRE_THROWS_AS(io::open_checkpoint(newer), parscale::StorageError);
  }

  TemporaryDirectory directory{fast_directory()};
  fs::path newer;
};

const std::vector<std::string> files_of_a_checkpoint = {"manifest.json", "model.safetensors",
                                                        "optimizer.safetensors", "trainer_state.json"};

}  // namespace

TEST_CASE("A whole checkpoint is good and says what it holds") {
  const TwoCheckpoints two;
  const io::Verdict verdict = io::verify_checkpoint(two.newer);
  REQUIRE(verdict.good());
  REQUIRE(verdict.manifest->step == 2);
  REQUIRE(verdict.manifest->files.size() == 3);
  REQUIRE(verdict.manifest->metadata.at("host") == "here");
  REQUIRE(verdict.manifest->bytes() > 840'000);
  REQUIRE(load(io::open_checkpoint(two.newer).path) == run_at(2));
}

TEST_CASE("A flipped bit anywhere in a file is found, and the file is named") {
  const TwoCheckpoints two;
  std::mt19937_64 random(7);
  for (const std::string& name : files_of_a_checkpoint) {
    const fs::path file = two.newer / name;
    const bool manifest = name == "manifest.json";
    const std::uint64_t size = fs::file_size(file);
    for (int trial = 0; trial < 12; ++trial) {
      const std::uint64_t byte = trial == 0 ? 0 : trial == 1 ? size - 1 : random() % size;
      const int bit = static_cast<int>(random() % 8);
      INFO(name << ", byte " << byte << ", bit " << bit);
      flip_bit(file, byte, bit);
      const io::Verdict verdict = io::verify_checkpoint(two.newer);
      REQUIRE(verdict.faults.size() == 1);
      REQUIRE(verdict.faults[0].file == name);
      if (!manifest) REQUIRE(verdict.faults[0].damage == Damage::checksum_mismatch);
      REQUIRE(good_step(two.directory.path()) == 1);
      flip_bit(file, byte, bit);
    }
    REQUIRE(io::verify_checkpoint(two.newer).good());
  }
}

TEST_CASE("Every single flipped bit of a manifest is found and never taken for another version or program") {
  const TwoCheckpoints two;
  const std::string text = io::read_file(two.newer / "manifest.json");
  REQUIRE(io::parse_manifest(text).manifest);
  for (std::size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string flipped = text;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    const auto reading = io::parse_manifest(flipped);
    INFO("bit " << bit << ": " << reading.why);
    REQUIRE_FALSE(reading.manifest);
    REQUIRE((reading.problem == io::ManifestProblem::altered ||
             reading.problem == io::ManifestProblem::unreadable));
  }
}

TEST_CASE("A manifest cut short at any byte is found") {
  const TwoCheckpoints two;
  const std::string text = io::read_file(two.newer / "manifest.json");
  for (std::size_t size = 0; size < text.size(); ++size) {
    INFO("cut to " << size << " bytes");
    REQUIRE_FALSE(io::parse_manifest(text.substr(0, size)).manifest);
  }
}

TEST_CASE("A flipped bit in the weights is a checksum mismatch") {
  const TwoCheckpoints two;
  flip_bit(two.newer / "model.safetensors", 150'000, 5);
  two.require(Damage::checksum_mismatch, "model.safetensors", "model.safetensors was altered");
}

TEST_CASE("A flipped bit in the manifest's step is an altered manifest") {
  const TwoCheckpoints two;
  const std::string text = io::read_file(two.newer / "manifest.json");
  flip_bit(two.newer / "manifest.json", text.find("\"step\": ") + 8, 0);
  two.require(Damage::manifest_altered, "manifest.json", "manifest.json was altered");
}

TEST_CASE("A truncated file is told from an altered one") {
  const TwoCheckpoints two;
  fs::resize_file(two.newer / "optimizer.safetensors", 1000);
  two.require(Damage::wrong_size, "optimizer.safetensors",
              "optimizer.safetensors is cut short: 1000 bytes instead of");
}

TEST_CASE("An empty file is a truncated one") {
  const TwoCheckpoints two;
  fs::resize_file(two.newer / "trainer_state.json", 0);
  two.require(Damage::wrong_size, "trainer_state.json", "trainer_state.json is cut short: 0 bytes");
}

TEST_CASE("A file that has grown is damage") {
  const TwoCheckpoints two;
  std::ofstream(two.newer / "model.safetensors", std::ios::app) << "x";
  two.require(Damage::wrong_size, "model.safetensors", "model.safetensors has grown");
}

TEST_CASE("A missing file is named") {
  const TwoCheckpoints two;
  fs::remove(two.newer / "optimizer.safetensors");
  two.require(Damage::missing_file, "optimizer.safetensors", "optimizer.safetensors is missing");
}

TEST_CASE("A directory in place of a file is damage") {
  const TwoCheckpoints two;
  fs::remove(two.newer / "trainer_state.json");
  fs::create_directory(two.newer / "trainer_state.json");
  two.require(Damage::unreadable, "trainer_state.json", "trainer_state.json cannot be read");
}

TEST_CASE("All damaged files of a checkpoint are listed") {
  const TwoCheckpoints two;
  fs::remove(two.newer / "trainer_state.json");
  flip_bit(two.newer / "model.safetensors", 5000, 1);
  const auto verdict = io::verify_checkpoint(two.newer);
  REQUIRE(verdict.faults.size() == 2);
  REQUIRE_THAT(verdict.text(), ContainsSubstring("model.safetensors was altered") &&
                                   ContainsSubstring("; trainer_state.json is missing"));
}

TEST_CASE("A checkpoint without manifest is incomplete") {
  const TwoCheckpoints two;
  fs::remove(two.newer / "manifest.json");
  two.require(Damage::incomplete, "manifest.json", "the writing was interrupted");
}

TEST_CASE("A manifest cut short is unreadable") {
  const TwoCheckpoints two;
  fs::resize_file(two.newer / "manifest.json", 100);
  two.require(Damage::manifest_unreadable, "manifest.json",
              "manifest.json is damaged: This is not valid JSON");
}

TEST_CASE("An empty manifest is unreadable") {
  const TwoCheckpoints two;
  fs::resize_file(two.newer / "manifest.json", 0);
  two.require(Damage::manifest_unreadable, "manifest.json", "it is empty");
}

TEST_CASE("A whole manifest of a later version is told from a damaged one") {
  const TwoCheckpoints two;
  write_text(two.newer / "manifest.json",
             io::detail::sealed("{\n  \"format\": \"parscale checkpoint\",\n  \"version\": 2"));
  two.require(Damage::unknown_version, "manifest.json", "version 2, this program reads version 1");
}

TEST_CASE("A sealed manifest with fields that make no sense is unreadable") {
  const TwoCheckpoints two;
  const std::string start = "{\n  \"format\": \"parscale checkpoint\",\n  \"version\": 1";
  for (const char* fields : {"", ", \"step\": \"2\", \"written\": 1, \"files\": {}, \"metadata\": {}",
                             ", \"step\": 2, \"written\": 1, \"files\": {\"../x\": {\"bytes\": 1, \"crc32\": "
                             "\"00000000\"}}, \"metadata\": {}",
                             ", \"step\": 2, \"written\": 1, \"files\": {\"x\": {\"bytes\": 1, \"crc32\": "
                             "\"zz\"}}, \"metadata\": {}",
                             ", \"step\": 2, \"written\": 1, \"files\": {}, \"metadata\": {\"a\": 1}"}) {
    INFO(fields);
    write_text(two.newer / "manifest.json", io::detail::sealed(start + fields));
    two.require(Damage::manifest_unreadable, "manifest.json", "its fields are not those of version 1");
  }
}

TEST_CASE("Another program's manifest is foreign") {
  const TwoCheckpoints two;
  write_text(two.newer / "manifest.json", "{\"name\": \"web app\", \"version\": 3}");
  two.require(Damage::foreign, "manifest.json", "not that of a parscale checkpoint");
}

TEST_CASE("Another program's checkpoint directory is passed over") {
  const TwoCheckpoints two;
  fs::remove_all(two.newer);
  fs::create_directory(two.newer);
  write_text(two.newer / "pytorch_model.bin", "...");
  two.require(Damage::incomplete, "manifest.json", "or another program made it");
}

TEST_CASE("A file that is named as a checkpoint is passed over") {
  const TwoCheckpoints two;
  fs::remove_all(two.newer);
  write_text(two.newer, "...");
  two.require(Damage::unreadable, "", "it is not a directory");
}

TEST_CASE("A checkpoint that may not be read is passed over") {
  const TwoCheckpoints two;
  fs::permissions(two.directory.path(), fs::perms::all);
  fs::permissions(two.newer, fs::perms::none);
  const auto end = traced::run_plainly([&] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) throw std::runtime_error("cannot give up root");
    const auto verdict = io::verify_checkpoint(two.newer);
    if (verdict.faults.at(0).damage != Damage::unreadable) throw std::runtime_error("wrong kind of damage");
    if (verdict.text().find("Permission denied") == std::string::npos)
      throw std::runtime_error(verdict.text());
    if (good_step(two.directory.path()) != 1) throw std::runtime_error("the older one is not found");
  });
  fs::permissions(two.newer, fs::perms::owner_all);
  REQUIRE(end.exit_code == 0);
}

TEST_CASE("An output directory that may not be read is a storage error") {
  const TwoCheckpoints two;
  fs::permissions(two.directory.path(), fs::perms::none);
  const auto end = traced::run_plainly([&] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) throw std::runtime_error("cannot give up root");
    io::latest_good_checkpoint(two.directory.path());
  });
  fs::permissions(two.directory.path(), fs::perms::owner_all);
  REQUIRE(end.exit_code == 4);
}

TEST_CASE("When no checkpoint is good the error lists them all and what is wrong with each") {
  const TwoCheckpoints two;
  fs::remove(two.newer / "manifest.json");
  flip_bit(two.directory.path() / "checkpoint-1" / "model.safetensors", 99, 0);
  REQUIRE_THROWS_AS(io::latest_good_checkpoint(two.directory.path()), parscale::StorageError);
  REQUIRE_THROWS_WITH(io::latest_good_checkpoint(two.directory.path()),
                      ContainsSubstring("checkpoint-1: model.safetensors was altered") &&
                          ContainsSubstring("checkpoint-2: it has no manifest.json"));
}

TEST_CASE("An explicit path is never replaced by another checkpoint") {
  const TwoCheckpoints two;
  flip_bit(two.newer / "model.safetensors", 99, 0);
  REQUIRE_THROWS_WITH(io::open_checkpoint(two.newer), ContainsSubstring("This checkpoint cannot be used") &&
                                                          ContainsSubstring("model.safetensors was altered"));
}

TEST_CASE("An explicit path that does not exist is an input error") {
  const TwoCheckpoints two;
  REQUIRE_THROWS_AS(io::open_checkpoint(two.directory.path() / "checkpoint-3"), parscale::InputError);
}

TEST_CASE("An output directory given in place of a checkpoint is explained") {
  const TwoCheckpoints two;
  REQUIRE_THROWS_WITH(io::open_checkpoint(two.directory.path()),
                      ContainsSubstring("name one of the checkpoints inside"));
}

TEST_CASE("A look at sizes alone finds everything but altered bytes") {
  const TwoCheckpoints two;
  flip_bit(two.newer / "model.safetensors", 99, 0);
  REQUIRE(io::verify_checkpoint(two.newer, io::Depth::sizes).good());
  fs::resize_file(two.newer / "model.safetensors", 99);
  REQUIRE_FALSE(io::verify_checkpoint(two.newer, io::Depth::sizes).good());
}
