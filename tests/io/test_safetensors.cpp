#include <cmath>
#include <numeric>
#include <parscale/io/safetensors.hpp>
#include <thread>
#include <vector>

#include "support.hpp"

using namespace parscale;
using namespace parscale::test;
using io::Dtype;
using io::SafetensorsFile;
using io::SafetensorsWriter;
using io::TensorSpec;

namespace {

std::vector<float> ramp(std::size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 0.5f);
  return values;
}

template <class T>
std::vector<T> read(const SafetensorsFile& file, std::string_view name) {
  const auto* info = file.find(name);
  REQUIRE(info != nullptr);
  std::vector<T> values(info->count());
  file.read(*info, std::span(values));
  return values;
}

std::span<const float> all(const std::vector<float>& values) { return values; }

}  // namespace

TEST_CASE("Every golden file opens, and its tensors fill it") {
  int files = 0;
  for (const auto& folder : std::filesystem::directory_iterator(PARSCALE_SOURCE_DIR "/tests/data/goldens")) {
    for (const char* name : {"model.safetensors", "expected.safetensors"}) {
      if (!std::filesystem::exists(folder.path() / name)) continue;
      INFO(folder.path().string() << " " << name);
      const SafetensorsFile file(folder.path() / name);
      CHECK(file.tensors().size() > 30);
      CHECK(file.metadata().at("format") == "pt");
      for (const auto& info : file.tensors()) {
        std::vector<double> values(info.count());
        file.read(info, std::span(values));
        for (double value : values) REQUIRE(std::isfinite(value));
      }
      ++files;
    }
  }
  CHECK(files == 34);
}

TEST_CASE("Values of a golden file are the known ones") {
  const SafetensorsFile file(PARSCALE_SOURCE_DIR "/tests/data/goldens/p1/expected.safetensors");
  const auto* ids = file.find("input_ids");
  REQUIRE(ids != nullptr);
  CHECK(ids->dtype == Dtype::i64);
  CHECK(ids->shape == std::vector<Index>{2, 11});
  for (std::int64_t id : read<std::int64_t>(file, "input_ids")) CHECK((id >= 0 && id < 96));
  const auto loss = read<double>(file, "loss");
  REQUIRE(loss.size() == 1);
  CHECK(std::abs(loss[0] - std::log(96.0)) < 1.0);  // an untrained model of 96 words
  CHECK(file.find("absent") == nullptr);
}

TEST_CASE("What is written is read again") {
  TemporaryDirectory folder;
  const std::vector<std::int64_t> ids = {1, -2, std::int64_t{1} << 40};
  const auto values = ramp(6);
  SafetensorsWriter writer(folder / "x",
                           {{"ids", Dtype::i64, {3}},
                            {"a", Dtype::f32, {2, 3}},
                            {"b", Dtype::bf16, {3, 2}},
                            {"s", Dtype::f16, {}}},
                           {{"format", "pt"}, {"note", "\u00e4"}});
  writer.write(std::span<const std::int64_t>(ids));
  writer.write(all(values));
  writer.write(all(values));
  writer.write(all(values).first(1));
  writer.finish();

  const SafetensorsFile file(folder / "x");
  CHECK(file.tensors().size() == 4);
  CHECK(file.metadata().at("note") == "\u00e4");
  CHECK(read<std::int64_t>(file, "ids") == ids);
  CHECK(read<float>(file, "a") == values);
  CHECK(read<float>(file, "b") == values);  // small numbers are exact in every format
  CHECK(file.find("s")->shape.empty());
  CHECK(read<double>(file, "s") == std::vector<double>{0.5});
}

TEST_CASE("A tensor may be written in any pieces, across the pieces of the writer") {
  TemporaryDirectory folder;
  const auto values = ramp(300'000);
  SafetensorsWriter writer(folder / "x", {{"a", Dtype::f64, {300, 1000}}, {"b", Dtype::f32, {300'000}}});
  writer.write(all(values));
  for (std::size_t at = 0, step = 1; at < values.size();
       at += step, step = std::min(step * 3, values.size() - at))
    writer.write(all(values).subspan(at, step));
  writer.finish();
  const SafetensorsFile file(folder / "x");
  CHECK(read<float>(file, "a") == values);
  CHECK(read<float>(file, "b") == values);
}

TEST_CASE("Part of a tensor is read from its place") {
  TemporaryDirectory folder;
  const auto values = ramp(10);
  SafetensorsWriter writer(folder / "x", {{"first", Dtype::f32, {3}}, {"a", Dtype::bf16, {2, 5}}});
  writer.write(all(values).first(3));
  writer.write(all(values));
  writer.finish();
  const SafetensorsFile file(folder / "x");
  std::vector<double> part(4);
  file.read_part(*file.find("a"), 5, std::span(part));
  CHECK(part == std::vector<double>{5.5, 6.5, 7.5, 8.5});
}

TEST_CASE("Tensors without elements are written and read") {
  TemporaryDirectory folder;
  SafetensorsWriter writer(folder / "x",
                           {{"e", Dtype::f32, {0}}, {"a", Dtype::f32, {1}}, {"f", Dtype::f32, {3, 0, 2}}});
  writer.write(all({2.0f}));
  writer.finish();
  const SafetensorsFile file(folder / "x");
  CHECK(read<float>(file, "e").empty());
  CHECK(read<float>(file, "a") == std::vector<float>{2.0f});
  CHECK(file.find("f")->shape == std::vector<Index>{3, 0, 2});
}

TEST_CASE("A file without tensors is written and read") {
  TemporaryDirectory folder;
  SafetensorsWriter(folder / "x", {}).finish();
  CHECK(SafetensorsFile(folder / "x").tensors().empty());
}

TEST_CASE("The data of a written file begins at a multiple of eight") {
  TemporaryDirectory folder;
  for (const char* name : {"a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "abcdefgh"}) {
    SafetensorsWriter writer(folder / "x", {{name, Dtype::f32, {1}}});
    writer.write(all({1.0f}));
    writer.finish();
    CHECK(io::read_file(folder / "x").size() % 8 == 4);
  }
}

TEST_CASE("Tensors at odd addresses are read") {
  TemporaryDirectory folder;
  const float value = 3.25f;
  std::string data(1, '\x7f');
  data.append(reinterpret_cast<const char*>(&value), 4);
  const auto bytes = safetensors_bytes(
      R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}} )",
      data);
  const SafetensorsFile file(folder.file("x", bytes));
  CHECK(read<float>(file, "b") == std::vector<float>{3.25f});
  CHECK(read<std::int32_t>(file, "a") == std::vector<std::int32_t>{127});
  CHECK(file.tensors()[0].name == "a");  // in the order of their bytes
}

TEST_CASE("A safetensors file can be moved and read by several threads") {
  TemporaryDirectory folder;
  const auto values = ramp(1000);
  SafetensorsWriter writer(folder / "x", {{"a", Dtype::f32, {1000}}});
  writer.write(all(values));
  writer.finish();
  SafetensorsFile first(folder / "x");
  const SafetensorsFile file(std::move(first));
  std::vector<std::vector<float>> seen(4);
  std::vector<std::thread> threads;
  threads.reserve(seen.size());
  for (auto& result : seen)
    threads.emplace_back([&file, &result] {
      result.resize(1000);
      file.read(*file.find("a"), std::span(result));
    });
  for (auto& thread : threads) thread.join();
  for (const auto& result : seen) CHECK(result == values);
}

TEST_CASE("A double name is refused before the file is touched") {
  TemporaryDirectory folder;
  const auto path = folder.file("x", "before");
  const std::vector<TensorSpec> specs = {{"a", Dtype::f32, {1}}, {"a", Dtype::f32, {1}}};
  CHECK_THAT(error_of<ConfigurationError>([&] { SafetensorsWriter(path, specs); }),
             ContainsSubstring("used twice"));
  CHECK(io::read_file(path) == "before");
}

TEST_CASE("The name of the metadata is refused for a tensor") {
  TemporaryDirectory folder;
  CHECK_THAT(error_of<ConfigurationError>([&] {
               SafetensorsWriter(folder / "x", {{"__metadata__", Dtype::f32, {1}}});
             }),
             ContainsSubstring("reserved"));
}

TEST_CASE("Impossible shapes are refused when writing") {
  TemporaryDirectory folder;
  const Index large = Index{1} << 40;
  for (const auto& shape : {std::vector<Index>{-1}, std::vector<Index>{large, large}})
    CHECK_THAT(error_of<ConfigurationError>([&] {
                 SafetensorsWriter(folder / "x", {{"a", Dtype::f32, shape}});
               }),
               ContainsSubstring("impossible shape") && ContainsSubstring("\"a\""));
}

TEST_CASE("An order that would misalign a tensor is refused") {
  TemporaryDirectory folder;
  const std::vector<TensorSpec> specs = {{"a", Dtype::u8, {3}}, {"b", Dtype::f32, {1}}};
  CHECK_THAT(error_of<ConfigurationError>([&] { SafetensorsWriter(folder / "x", specs); }),
             ContainsSubstring("misaligned") && ContainsSubstring("larger elements first"));
}

TEST_CASE("A piece beyond the end of its tensor is refused") {
  TemporaryDirectory folder;
  SafetensorsWriter writer(folder / "x", {{"a", Dtype::f32, {2}}, {"b", Dtype::f32, {2}}});
  CHECK_THAT(error_of<ConfigurationError>([&] { writer.write(all(ramp(3))); }),
             ContainsSubstring("More elements are written") && ContainsSubstring("\"a\""));
}

TEST_CASE("Writing after the last tensor is refused") {
  TemporaryDirectory folder;
  SafetensorsWriter writer(folder / "x", {{"a", Dtype::f32, {1}}});
  writer.write(all(ramp(1)));
  CHECK_THAT(error_of<ConfigurationError>([&] { writer.write(all(ramp(1))); }),
             ContainsSubstring("More elements"));
}

TEST_CASE("Finishing with elements missing names the tensor") {
  TemporaryDirectory folder;
  SafetensorsWriter writer(folder / "x", {{"a", Dtype::f32, {1}}, {"b", Dtype::f32, {5}}});
  writer.write(all(ramp(1)));
  writer.write(all(ramp(2)));
  CHECK_THAT(error_of<ConfigurationError>([&] { writer.finish(); }),
             ContainsSubstring("\"b\"") && ContainsSubstring("3 elements are missing"));
}

TEST_CASE("A full disk stops the safetensors writer with a storage error") {
  CHECK_THAT(error_of<StorageError>([&] {
               SafetensorsWriter("/dev/full", {{"a", Dtype::f32, {1}}});
             }),
             ContainsSubstring("The disk is full"));
}

TEST_CASE("A tensor name that is not UTF-8 is refused") {
  TemporaryDirectory folder;
  CHECK_THAT(error_of<ConfigurationError>([&] {
               SafetensorsWriter(folder / "x", {{"\xff", Dtype::f32, {1}}});
             }),
             ContainsSubstring("not valid UTF-8"));
}
