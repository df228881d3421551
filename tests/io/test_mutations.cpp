#include <parscale/io/model_config.hpp>
#include <parscale/io/sharded_tensors.hpp>
#include <random>
#include <vector>

#include "support.hpp"

using namespace parscale;
using namespace parscale::test;
using io::Dtype;

namespace {

/// Damages a text in one of the ways that files are damaged.
class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  std::string damage(std::string text) {
    for (std::size_t times = 1 + below(3); times > 0; --times) text = damage_once(std::move(text));
    return text;
  }

 private:
  std::string damage_once(std::string text) {
    if (text.empty()) return text;
    const std::size_t at = below(text.size());
    switch (below(6)) {
      case 0:
        text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        text[at] = static_cast<char>(below(256));
        break;
      case 2:
        text.resize(at);
        break;
      case 3:
        text.insert(at, 1 + below(16), text[at]);
        break;
      case 4:
        text.erase(at, 1 + below(16));
        break;
      default:
        text[at] = "0123456789-{}[],:\"e"[below(19)];
    }
    return text;
  }
  std::size_t below(std::size_t limit) { return random_() % limit; }

  std::mt19937 random_;
};

/// Runs `f`, which may succeed or end in an InputError. Returns whether it succeeded.
template <class F>
bool survives(F&& f) {
  try {
    f();
    return true;
  } catch (const InputError&) {
    return false;
  }
}

/// A small file with several types, as bytes.
std::string small_file(const TemporaryDirectory& folder) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const std::vector<std::int64_t> ids = {7, 8};
  io::SafetensorsWriter writer(folder / "whole",
                               {{"ids", Dtype::i64, {2}}, {"a", Dtype::f32, {2, 3}}, {"b", Dtype::bf16, {6}}},
                               {{"format", "pt"}});
  writer.write(std::span<const std::int64_t>(ids));
  writer.write(std::span<const float>(values));
  writer.write(std::span<const float>(values));
  writer.finish();
  return io::read_file(folder / "whole");
}

/// Reads everything that a file offers.
void read_all(const std::filesystem::path& path) {
  const io::SafetensorsFile file(path);
  for (const auto& info : file.tensors()) {
    std::vector<double> values(info.count());
    file.read(info, std::span(values));
  }
}

}  // namespace

TEST_CASE("Damaged safetensors files end in an input error or are read, nothing else") {
  TemporaryDirectory folder;
  const std::string whole = small_file(folder);
  int read = 0;
  constexpr int rounds = 6000;
  for (unsigned seed = 0; seed < rounds; ++seed) {
    INFO("seed " << seed);
    const auto path = folder.file("damaged", Mutator(seed).damage(whole));
    read += survives([&] { read_all(path); });
  }
  CHECK(read > 0);           // a changed value is no damage that a reader can see
  CHECK(read < rounds / 2);  // but most changes are
}

TEST_CASE("A safetensors file that lost or gained bytes is never read") {
  TemporaryDirectory folder;
  const std::string whole = small_file(folder);
  for (std::size_t size = 0; size < whole.size(); ++size)
    CHECK_FALSE(survives([&] { read_all(folder.file("damaged", whole.substr(0, size))); }));
  CHECK_FALSE(survives([&] { read_all(folder.file("damaged", whole + '\0')); }));
}

TEST_CASE("A damaged index ends in an input error or is read, nothing else") {
  TemporaryDirectory folder;
  io::ShardedWriter writer(folder.path(), {{"a", Dtype::f32, {1}}, {"b", Dtype::f32, {1}}}, 4);
  const std::vector<float> one = {1};
  for (int i = 0; i < 2; ++i) writer.write(std::span<const float>(one));
  writer.finish();
  const std::string index = io::read_file(folder / "model.safetensors.index.json");
  for (unsigned seed = 0; seed < 2000; ++seed) {
    INFO("seed " << seed);
    folder.file("model.safetensors.index.json", Mutator(seed).damage(index));
    survives([&] { io::TensorFiles{folder.path()}; });
  }
}

TEST_CASE("A damaged config.json ends in an input error or is read, nothing else") {
  const auto text = io::read_file(PARSCALE_SOURCE_DIR "/tests/data/goldens/p2_expanded_some/config.json");
  int read = 0;
  for (unsigned seed = 0; seed < 6000; ++seed) {
    INFO("seed " << seed);
    read += survives([&] { io::parse_model_config(io::parse_json(Mutator(seed).damage(text), "f"), "f"); });
  }
  CHECK(read > 0);
}
