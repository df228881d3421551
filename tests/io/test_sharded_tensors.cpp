#include <numeric>
#include <parscale/io/sharded_tensors.hpp>
#include <set>
#include <thread>
#include <vector>

#include "support.hpp"

using namespace parscale;
using namespace parscale::test;
using io::Dtype;
using io::ShardedWriter;
using io::TensorFiles;
using io::TensorSpec;

namespace {

const std::vector<TensorSpec> five_tensors = {{"a", Dtype::f32, {2, 5}},
                                              {"b", Dtype::f32, {3}},
                                              {"empty", Dtype::f32, {0}},
                                              {"c", Dtype::f32, {7}},
                                              {"d", Dtype::f32, {}}};

std::vector<float> values_of(const TensorSpec& spec) {
  std::vector<float> values(io::bytes_of(spec.dtype, spec.shape).value() / 4);
  std::iota(values.begin(), values.end(), static_cast<float>(spec.name[0]));
  return values;
}

void write_five(const std::filesystem::path& folder, std::uint64_t max_shard_bytes) {
  ShardedWriter writer(folder, five_tensors, max_shard_bytes);
  for (const auto& spec : five_tensors) writer.write(std::span<const float>(values_of(spec)));
  writer.finish();
}

void check_five(const TensorFiles& files) {
  CHECK(files.names().size() == five_tensors.size());
  for (const auto& spec : five_tensors) {
    INFO(spec.name);
    const auto* info = files.find(spec.name);
    REQUIRE(info != nullptr);
    CHECK(info->shape == spec.shape);
    std::vector<float> values(info->count());
    files.read(spec.name, std::span(values));
    CHECK(values == values_of(spec));
  }
}

std::set<std::string> names_in(const std::filesystem::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.insert(entry.path().filename().string());
  return names;
}

/// A folder with the files a.safetensors ("a") and b.safetensors ("b") and this weight_map.
std::string error_of_index(const std::string& weight_map) {
  TemporaryDirectory folder;
  for (const char* name : {"a", "b"}) {
    io::SafetensorsWriter writer(folder / (std::string(name) + ".safetensors"), {{name, Dtype::f32, {0}}});
    writer.finish();
  }
  folder.file("model.safetensors.index.json", "{\"weight_map\":" + weight_map + "}");
  return error_of<InputError>([&] { TensorFiles{folder.path()}; });
}

}  // namespace

TEST_CASE("A checkpoint that fits is one file") {
  TemporaryDirectory folder;
  write_five(folder.path(), 84);
  CHECK(names_in(folder.path()) == std::set<std::string>{"model.safetensors"});
  check_five(TensorFiles(folder.path()));
  check_five(TensorFiles(folder / "model.safetensors"));
}

TEST_CASE("A checkpoint beyond the limit is split at tensors, with an index") {
  TemporaryDirectory folder;
  write_five(folder.path(), 52);  // a and b, then the rest
  CHECK(names_in(folder.path()) == std::set<std::string>{"model-00001-of-00002.safetensors",
                                                         "model-00002-of-00002.safetensors",
                                                         "model.safetensors.index.json"});
  check_five(TensorFiles(folder.path()));
}

TEST_CASE("A tensor larger than the limit has a file of its own") {
  TemporaryDirectory folder;
  write_five(folder.path(), 1);
  const TensorFiles files(folder.path());
  check_five(files);
  CHECK(files.files().size() == 4);  // the empty tensor joins its neighbour
}

TEST_CASE("The index of a written checkpoint says size and places") {
  TemporaryDirectory folder;
  write_five(folder.path(), 45);
  const auto index = io::read_json(folder / "model.safetensors.index.json");
  CHECK(index["metadata"]["total_size"] == 84);
  CHECK(index["weight_map"].size() == 5);
  for (const auto& [tensor, file] : index["weight_map"].members()) {
    const io::SafetensorsFile shard(folder / file.get<std::string>());
    CHECK(shard.find(tensor) != nullptr);
    CHECK(shard.metadata().at("format") == "pt");
  }
}

TEST_CASE("A new checkpoint removes what readers would take for the old one, and nothing else") {
  TemporaryDirectory folder;
  folder.file("model-notes.safetensors", "kept");
  folder.file("config.json", "kept");
  write_five(folder.path(), 1);
  write_five(folder.path(), 1000);
  CHECK(names_in(folder.path()) ==
        std::set<std::string>{"config.json", "model-notes.safetensors", "model.safetensors"});
  write_five(folder.path(), 60);
  CHECK_FALSE(std::filesystem::exists(folder / "model.safetensors"));
  check_five(TensorFiles(folder.path()));
}

TEST_CASE("A checkpoint without tensors is one file") {
  TemporaryDirectory folder;
  ShardedWriter(folder.path(), {}).finish();
  CHECK(TensorFiles(folder.path()).names().empty());
}

TEST_CASE("A shard limit of zero is refused") {
  TemporaryDirectory folder;
  CHECK_THAT(error_of<ConfigurationError>([&] { ShardedWriter(folder.path(), five_tensors, 0); }),
             ContainsSubstring("zero"));
}

TEST_CASE("A double name is refused even when its tensors would lie in different files") {
  TemporaryDirectory folder;
  const std::vector<TensorSpec> specs = {{"a", Dtype::f32, {1}}, {"a", Dtype::f32, {1}}};
  CHECK_THAT(error_of<ConfigurationError>([&] { ShardedWriter(folder.path(), specs, 4); }),
             ContainsSubstring("used twice"));
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("A sharded checkpoint that is finished too early names the missing tensor") {
  TemporaryDirectory folder;
  ShardedWriter writer(folder.path(), five_tensors, 1);
  writer.write(std::span<const float>(values_of(five_tensors[0])));
  CHECK_THAT(error_of<ConfigurationError>([&] { writer.finish(); }), ContainsSubstring("\"b\""));
  CHECK_FALSE(std::filesystem::exists(folder / "model.safetensors.index.json"));
}

TEST_CASE("Too many elements for a sharded checkpoint are refused") {
  TemporaryDirectory folder;
  ShardedWriter writer(folder.path(), {{"a", Dtype::f32, {1}}, {"b", Dtype::f32, {1}}}, 4);
  const std::vector<float> one = {1.0f};
  writer.write(std::span<const float>(one));
  writer.write(std::span<const float>(one));
  CHECK_THAT(error_of<ConfigurationError>([&] { writer.write(std::span<const float>(one)); }),
             ContainsSubstring("More elements"));
}

TEST_CASE("Several threads may read one sharded checkpoint, even after it was moved") {
  TemporaryDirectory folder;
  write_five(folder.path(), 1);
  TensorFiles first(folder.path());
  const TensorFiles files(std::move(first));
  std::vector<float> c(4, -1);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 4; ++i)
    threads.emplace_back([&, i] { files.read_part("c", i + 2, std::span(c).subspan(i, 1)); });
  for (auto& thread : threads) thread.join();
  CHECK(c == std::vector<float>{101, 102, 103, 104});
}

TEST_CASE("A tensor that the checkpoint lacks is an error with its name") {
  TemporaryDirectory folder;
  write_five(folder.path(), 1000);
  const TensorFiles files(folder.path());
  CHECK(files.find("x") == nullptr);
  std::vector<float> out(1);
  CHECK_THAT(error_of<InputError>([&] { files.read("x", std::span(out)); }),
             ContainsSubstring("no tensor \"x\""));
}

TEST_CASE("A folder without checkpoint is an error that lists what was looked for") {
  TemporaryDirectory folder;
  CHECK_THAT(
      error_of<InputError>([&] { TensorFiles{folder.path()}; }),
      ContainsSubstring("no safetensors checkpoint") && ContainsSubstring("model.safetensors.index.json"));
}

TEST_CASE("A folder with a pickled checkpoint only says how to convert it") {
  TemporaryDirectory folder;
  folder.file("pytorch_model.bin", "x");
  CHECK_THAT(error_of<InputError>([&] { TensorFiles{folder.path()}; }),
             ContainsSubstring("safe_serialization"));
}

TEST_CASE("A checkpoint path that does not exist is an error") {
  CHECK_THAT(error_of<InputError>([] { TensorFiles{"absent-folder"}; }), ContainsSubstring("does not exist"));
}

TEST_CASE("An index without weight_map is an error") {
  TemporaryDirectory folder;
  folder.file("model.safetensors.index.json", "{}");
  CHECK_THAT(error_of<InputError>([&] { TensorFiles{folder.path()}; }), ContainsSubstring("no weight_map"));
}

TEST_CASE("A weight_map that is no object is an error") {
  CHECK_THAT(error_of_index("[]"), ContainsSubstring("no weight_map"));
}

TEST_CASE("A file name in the index that is not text is an error") {
  CHECK_THAT(error_of_index(R"({"a":1})"), ContainsSubstring("names no file") && ContainsSubstring("\"a\""));
}

TEST_CASE("A file name in the index that leads out of the folder is an error") {
  for (const char* name :
       {"../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ".", "", "a\\\\b", "a\\u0000b"})
    CHECK_THAT(error_of_index(std::string(R"({"a":")") + name + "\"}"),
               ContainsSubstring("outside its folder"));
}

TEST_CASE("A file of the index that is missing is an error with its name") {
  CHECK_THAT(error_of_index(R"({"a":"a.safetensors","c":"c.safetensors"})"),
             ContainsSubstring("does not exist") && ContainsSubstring("c.safetensors"));
}

TEST_CASE("A tensor of the index that its file lacks is an error") {
  CHECK_THAT(error_of_index(R"({"a":"a.safetensors","c":"a.safetensors"})"),
             ContainsSubstring("missing in its file") && ContainsSubstring("\"c\" is not in a.safetensors"));
}

TEST_CASE("A tensor of a file that the index lacks is an error") {
  CHECK_THAT(error_of_index(R"({"c":"a.safetensors"})"),
             ContainsSubstring("missing in the index") && ContainsSubstring("tensor \"a\""));
}

TEST_CASE("A tensor in another file than the index says is an error") {
  CHECK_THAT(error_of_index(R"({"a":"b.safetensors","b":"a.safetensors"})"),
             ContainsSubstring("another file than the index says"));
}

TEST_CASE("A tensor that is listed twice in the index is an error") {
  CHECK_THAT(error_of_index(R"({"a":"a.safetensors","a":"b.safetensors"})"),
             ContainsSubstring("same key twice"));
}

TEST_CASE("A tensor that lies in two files is an error") {
  TemporaryDirectory folder;
  for (const char* name : {"x.safetensors", "y.safetensors"})
    io::SafetensorsWriter(folder / name, {{"a", Dtype::f32, {0}}, {name, Dtype::f32, {0}}}).finish();
  folder.file(
      "model.safetensors.index.json",
      R"({"weight_map":{"a":"x.safetensors","x.safetensors":"x.safetensors","y.safetensors":"y.safetensors"}})");
  CHECK_THAT(error_of<InputError>([&] { TensorFiles{folder.path()}; }),
             ContainsSubstring("another file than the index says") && ContainsSubstring("tensor \"a\""));
}
