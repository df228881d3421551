// The training state comes back bit for bit, and what does not fit is named.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "sample.hpp"

using namespace sample;
using Catch::Matchers::ContainsSubstring;
using parscale::ConfigurationError;
using parscale::StorageError;

namespace {

struct Saved {
  TemporaryDirectory directory{fast_directory()};
  fs::path path = save(directory.path(), 3);
};

/// The message of the error when checkpoint 3 is loaded into other tensors than it holds.
std::string message_for(const std::function<void(io::TrainingTensors<io::TensorSink<float>>&)>& change) {
  const Saved saved;
  Run run = run_at(9);
  auto tensors = sinks(run);
  change(tensors);
  std::string message;
  try {
    io::read_training_state(saved.path, tensors);
  } catch (const ConfigurationError& error) {
    message = error.what();
  }
  REQUIRE(run == run_at(9));  // a failed resume changes nothing
  return message;
}

io::Json good_json() { return io::to_json(run_at(3).state); }

}  // namespace

TEST_CASE("A checkpoint gives every bit back, NaN and infinities included") {
  const Saved saved;
  REQUIRE(load(saved.path) == run_at(3));
}

TEST_CASE("Double precision comes back bit for bit") {
  const TemporaryDirectory directory;
  const std::vector<double> saved = {1.0 / 3, -0.0, 1e-320, 3e300};
  std::vector<double> restored(4);
  const auto path = directory.path() / "model.safetensors";
  io::write_tensors<double>(path, {io::source_from<double>("a", {2, 2}, saved)});
  io::read_tensors<double>(io::SafetensorsFile(path), {io::sink_into<double>("a", {2, 2}, restored)});
  for (std::size_t i = 0; i < 4; ++i)
    REQUIRE(std::bit_cast<std::uint64_t>(saved[i]) == std::bit_cast<std::uint64_t>(restored[i]));
}

TEST_CASE("Large tensors travel in pieces of bounded size, in order and without gaps") {
  const TemporaryDirectory directory(fast_directory());
  const Index size = 2'500'000;
  const auto path = directory.path() / "model.safetensors";
  Index written = 0, read = 0;
  bool bounded = true, equal = true;
  io::write_tensors<float>(path, {{"a", {size}, [&](Index first, std::span<float> out) {
                                     bounded = bounded && first == written && out.size() <= 1u << 20;
                                     for (float& value : out)
                                       value = static_cast<float>(written++ % 16'000'000);
                                   }}});
  io::read_tensors<float>(io::SafetensorsFile(path),
                          {{"a", {size}, [&](Index first, std::span<const float> in) {
                              bounded = bounded && first == read && in.size() <= 1u << 20;
                              for (float value : in) equal = equal && value == static_cast<float>(read++);
                            }}});
  REQUIRE(bounded);
  REQUIRE(equal);
  REQUIRE(written == size);
  REQUIRE(read == size);
}

TEST_CASE("Tensors without elements and without axes are saved and restored") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "model.safetensors";
  const float saved = 42;
  float restored = 0;
  io::write_tensors<float>(path, {io::source_from<float>("empty", {4, 0}, {}),
                                  io::source_from<float>("scalar", {}, std::span(&saved, 1))});
  io::read_tensors<float>(io::SafetensorsFile(path),
                          {io::sink_into<float>("empty", {4, 0}, {}),
                           io::sink_into<float>("scalar", {}, std::span(&restored, 1))});
  REQUIRE(restored == 42);
}

TEST_CASE("The moments lie in the optimizer's file under the names of their weights") {
  const Saved saved;
  const io::SafetensorsFile file(saved.path / "optimizer.safetensors");
  REQUIRE(file.tensors().size() == 2);
  REQUIRE(file.find("exp_avg.matrix") != nullptr);
  REQUIRE(file.find("exp_avg_sq.matrix") != nullptr);
}

TEST_CASE("A tensor that the checkpoint lacks is named") {
  const auto message = message_for([](auto& tensors) { tensors.weights[1].name = "other"; });
  REQUIRE_THAT(message, ContainsSubstring("\"other\" is not in the checkpoint; and 1 more difference"));
}

TEST_CASE("A tensor that the model lacks is named") {
  const auto message = message_for([](auto& tensors) { tensors.weights.pop_back(); });
  REQUIRE_THAT(message, ContainsSubstring("\"vector\" is in the checkpoint and not here"));
}

TEST_CASE("Another shape is named, and further differences are counted") {
  const auto message = message_for([](auto& tensors) {
    tensors.weights[0].extent = {100, 700};
    tensors.weights[1].extent = {6};
    tensors.weights.push_back({"third", {1}, nullptr});
  });
  REQUIRE_THAT(message,
               ContainsSubstring("\"matrix\" is F32 [700,100] in the checkpoint and F32 [100,700] here; "
                                 "and 2 more differences"));
}

TEST_CASE("Another shape of a moment is found before any weight is touched") {
  const auto message = message_for([](auto& tensors) { tensors.exp_avg[0].extent = {70'000}; });
  REQUIRE_THAT(message, ContainsSubstring("optimizer.safetensors") &&
                            ContainsSubstring("\"exp_avg.matrix\" is F32 [700,100]"));
}

TEST_CASE("Another precision is named") {
  const Saved saved;
  std::vector<double> memory(70'000);
  const io::SafetensorsFile file(saved.path / "model.safetensors");
  REQUIRE_THROWS_AS(io::read_tensors<double>(file, {io::sink_into<double>("matrix", {700, 100}, memory)}),
                    ConfigurationError);
  REQUIRE_THROWS_WITH(io::read_tensors<double>(file, {io::sink_into<double>("matrix", {700, 100}, memory)}),
                      ContainsSubstring("is F32 [700,100] in the checkpoint and F64 [700,100] here"));
}

TEST_CASE("The trainer's state comes back from its JSON") {
  REQUIRE(io::parse_trainer_state(good_json(), "here") == run_at(3).state);
}

TEST_CASE("A missing field of the trainer's state is named") {
  const io::Json whole = good_json();
  for (const auto& [name, value] : whole.members()) {
    io::Json json = whole;
    json.erase(name);
    REQUIRE_THROWS_AS(io::parse_trainer_state(json, "here"), StorageError);
    REQUIRE_THROWS_WITH(io::parse_trainer_state(json, "here"),
                        ContainsSubstring("\"" + name + "\" is missing"));
  }
}

TEST_CASE("An unknown field of the trainer's state is named") {
  io::Json json = good_json();
  json["momentum"] = 1;
  REQUIRE_THROWS_WITH(io::parse_trainer_state(json, "here"), ContainsSubstring("\"momentum\" is unknown"));
}

TEST_CASE("Fields of the trainer's state of the wrong kind are refused") {
  const std::vector<std::pair<const char*, io::Json>> wrong = {
      {"step", -1},        {"step", 1.5},     {"step", "1"},          {"step", nullptr},
      {"step", ~0ull},     {"seed", -1},      {"seed", 1e30},         {"options_digest", 5},
      {"seconds", "slow"}, {"seconds", -1.0}, {"metrics_bytes", true}};
  for (const auto& [key, value] : wrong) {
    io::Json json = good_json();
    json[key] = value;
    INFO(key << " = " << value.dump());
    REQUIRE_THROWS_AS(io::parse_trainer_state(json, "here"), StorageError);
    REQUIRE_THROWS_WITH(io::parse_trainer_state(json, "here"),
                        ContainsSubstring("has the value " + parscale::io::shown(value)));
  }
}

TEST_CASE("A trainer's state that is no object is refused") {
  REQUIRE_THROWS_AS(io::parse_trainer_state(io::Json::array(), "here"), StorageError);
}

TEST_CASE("Checksums are those of zlib, in one piece or in many") {
  const std::string text = "123456789";
  REQUIRE(io::hex(io::crc32_of(text)) == "cbf43926");
  REQUIRE(io::crc32_of(std::string_view()) == 0);
  const auto bytes = std::as_bytes(std::span(text));
  REQUIRE(io::crc32_of(bytes.subspan(4), io::crc32_of(bytes.first(4))) == io::crc32_of(text));
}

TEST_CASE("A file's summary is its length and checksum") {
  const TemporaryDirectory directory(fast_directory());
  const std::string text(3'000'001, 'x');
  write_text(directory.path() / "file", text);
  REQUIRE(io::summarize_file(directory.path() / "file") ==
          io::ContentSummary{.bytes = text.size(), .crc32 = io::crc32_of(text)});
}
