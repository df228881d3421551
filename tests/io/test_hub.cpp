#include <optional>
#include <parscale/io/hub.hpp>
#include <string>
#include <vector>

#include "support.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

/// Sets environment variables of the Hugging Face cache, and restores what was there.
class Environment {
 public:
  Environment() {
    for (const char* name : names) {
      const char* value = std::getenv(name);
      before_.push_back(value != nullptr ? std::optional<std::string>(value) : std::nullopt);
      ::unsetenv(name);
    }
  }
  ~Environment() {
    for (std::size_t i = 0; i < before_.size(); ++i) {
      if (before_[i]) set(names[i], *before_[i]);
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  void set(const char* name, const std::string& value) const { ::setenv(name, value.c_str(), 1); }

 private:
  static constexpr const char* names[] = {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"};
  std::vector<std::optional<std::string>> before_ = {};
};

/// A cache with two models and a data set.
struct Cache {
  TemporaryDirectory folder;
  Environment environment;
  Cache() {
    environment.set("HF_HUB_CACHE", folder.path().string());
    folder.file("models--Qwen--Qwen2-1.5B/refs/main", "abc123");
    folder.file("models--Qwen--Qwen2-1.5B/snapshots/abc123/config.json", "{}");
    folder.file("models--Qwen--Qwen2-1.5B/snapshots/old/config.json", "{}");
    folder.file("models--someone--model/snapshots/only/config.json", "{}");
    folder.file("datasets--bigcode--the-stack-smol/refs/main", "r1\n");
    folder.file("datasets--bigcode--the-stack-smol/snapshots/r1/data.json", "{}");
  }
};

}  // namespace

TEST_CASE("The cache is found as the Hugging Face libraries find it") {
  const Environment environment;
  environment.set("HOME", "/h");
  CHECK(io::hub_cache() == "/h/.cache/huggingface/hub");
  environment.set("XDG_CACHE_HOME", "/x");
  CHECK(io::hub_cache() == "/x/huggingface/hub");
  environment.set("HF_HOME", "/hf");
  CHECK(io::hub_cache() == "/hf/hub");
  environment.set("HF_HUB_CACHE", "/cache");
  CHECK(io::hub_cache() == "/cache");
  environment.set("HF_HUB_CACHE", "");
  CHECK(io::hub_cache() == "/hf/hub");
  ::unsetenv("HF_HUB_CACHE");
  ::unsetenv("HF_HOME");
  ::unsetenv("XDG_CACHE_HOME");
}

TEST_CASE("A directory is a model by itself") {
  TemporaryDirectory folder;
  CHECK(io::resolve_model(folder.path().string()) == folder.path());
}

TEST_CASE("A hub name leads to the snapshot that main stands for") {
  const Cache cache;
  const auto snapshot = cache.folder / "models--Qwen--Qwen2-1.5B/snapshots/abc123";
  CHECK(io::resolve_model("Qwen/Qwen2-1.5B") == snapshot);
  CHECK(io::resolve_model("Qwen2-1.5B") == snapshot);
}

TEST_CASE("Without refs/main the only snapshot is taken") {
  const Cache cache;
  CHECK(io::resolve_model("someone/model") == cache.folder / "models--someone--model/snapshots/only");
  cache.folder.file("models--someone--model/snapshots/second/config.json", "{}");
  CHECK_THAT(error_of<InputError>([] { io::resolve_model("someone/model"); }),
             ContainsSubstring("no downloaded copy"));
}

TEST_CASE("A model that is nowhere is an error with the command that downloads it") {
  const Cache cache;
  CHECK_THAT(error_of<InputError>([] { io::resolve_model("Qwen/Qwen2-7B"); }),
             ContainsSubstring("neither a path nor in the Hugging Face cache") &&
                 ContainsSubstring("huggingface-cli download Qwen/Qwen2-7B"));
  CHECK_THAT(error_of<InputError>([] { io::resolve_model("Qwen2-7B"); }),
             ContainsSubstring("huggingface-cli download Qwen/Qwen2-7B"));
}

TEST_CASE("A cached model without config.json is incomplete") {
  const Cache cache;
  std::filesystem::remove(cache.folder / "models--Qwen--Qwen2-1.5B/snapshots/abc123/config.json");
  CHECK_THAT(
      error_of<InputError>([] { io::resolve_model("Qwen/Qwen2-1.5B"); }),
      ContainsSubstring("incomplete") && ContainsSubstring("huggingface-cli download Qwen/Qwen2-1.5B"));
}

TEST_CASE("A reference that leads out of the snapshots is not followed") {
  const Cache cache;
  for (const char* revision : {"../../elsewhere", "..", ".", "", "missing"}) {
    cache.folder.file("models--Qwen--Qwen2-1.5B/refs/main", revision);
    CHECK_THAT(error_of<InputError>([] { io::resolve_model("Qwen/Qwen2-1.5B"); }),
               ContainsSubstring("no downloaded copy"));
  }
}

TEST_CASE("A path that does not exist is not taken for a hub name") {
  const Cache cache;
  for (const char* path : {"./absent", "/absent/model", "a/b/c", "models/", "../x", ""})
    CHECK_THAT(error_of<InputError>([&] { io::resolve_model(path); }),
               ContainsSubstring("directory does not exist"));
}

TEST_CASE("A file is not a model") {
  TemporaryDirectory folder;
  const auto path = folder.file("model.safetensors", "x");
  CHECK_THAT(error_of<InputError>([&] { io::resolve_model(path.string()); }),
             ContainsSubstring("this is a file"));
}

TEST_CASE("A data set is a path, a hub name or one of the short names") {
  const Cache cache;
  const auto snapshot = cache.folder / "datasets--bigcode--the-stack-smol/snapshots/r1";
  CHECK(io::resolve_dataset("stack") == snapshot);
  CHECK(io::resolve_dataset("bigcode/the-stack-smol") == snapshot);
  const auto file = cache.folder.file("text.txt", "x");
  CHECK(io::resolve_dataset(file.string()) == file);
}

TEST_CASE("A data set that is nowhere is an error with the command that downloads it") {
  const Cache cache;
  CHECK_THAT(
      error_of<InputError>([] { io::resolve_dataset("pajama"); }),
      ContainsSubstring("\"pajama\"") &&
          ContainsSubstring(
              "huggingface-cli download --repo-type dataset togethercomputer/RedPajama-Data-1T-Sample"));
  CHECK_THAT(error_of<InputError>([] { io::resolve_dataset("./absent.txt"); }),
             ContainsSubstring("does not exist"));
}
