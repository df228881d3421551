/// Short ways to say what a test gives to the options, and what it expects of an error.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <common/options.hpp>
#include <filesystem>
#include <fstream>
#include <parscale/core/error.hpp>
#include <string>
#include <vector>

namespace parscale::program {

using Words = std::vector<std::string>;

inline Options from_words(const Words& words, Machine machine = {}) {
  return parse_options({}, words, machine);
}

/// A folder of its own for a test, removed with it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "parscale-options-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::filesystem::path file(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
    return path_ / name;
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline Options from_yaml(const std::string& yaml, const Words& words = {}) {
  const TemporaryFolder folder;
  return parse_options({folder.file("run.yaml", yaml)}, words);
}

/// The message of the ConfigurationError that `act` throws; fails the test when it throws none.
template <class Act>
std::string refusal(Act act) {
  try {
    act();
  } catch (const ConfigurationError& error) {
    CHECK(error.exit_code() == 2);
    return error.what();
  }
  FAIL("no ConfigurationError was thrown");
  return {};
}

inline std::string refusal_of_words(const Words& words) {
  return refusal([&] { from_words(words); });
}
inline std::string refusal_of_yaml(const std::string& yaml) {
  return refusal([&] { from_yaml(yaml); });
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}
inline bool contains(const std::vector<std::string>& texts, const std::string& part) {
  for (const std::string& text : texts)
    if (contains(text, part)) return true;
  return false;
}

}  // namespace parscale::program
