/// Starts the built programs as a user would, and small models and texts for them.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <parscale/io/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace parscale::test {

namespace fs = std::filesystem;

inline const fs::path source_dir = PARSCALE_SOURCE_DIR;
inline const fs::path program_dir = PARSCALE_PROGRAM_DIR;

inline std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
inline void write_text(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}
inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// A directory of its own, gone when the test ends.
class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "parscale-programs-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  fs::path operator/(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

struct Outcome {
  int code;  ///< exit code, or 128 + the signal that ended it
  std::string out, err;
  std::string last_line() const {
    const std::string text = out.substr(0, out.find_last_not_of('\n') + 1);
    return text.substr(text.rfind('\n') + 1);
  }
};

/// A program that has been started; output goes to files, so that nobody has to read along.
class Started {
 public:
  Started(const Scratch& scratch, const std::string& program, const std::vector<std::string>& words,
          const std::vector<std::string>& environment = {}) {
    static std::atomic<int> count = 0;
    const std::string id = std::to_string(++count);
    out_ = scratch / ("out" + id);
    err_ = scratch / ("err" + id);
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) exec(program, words, environment, scratch);
  }

  void signal(int number) const { ::kill(pid_, number); }
  std::string output() const { return read_text(out_); }

  /// Waits until `part` stands in the output; false when the program ended or two minutes passed before.
  bool wait_for(const std::string& part) {
    for (int i = 0; i < 2400; ++i) {
      if (has(output(), part)) return true;
      if (finished()) return has(output(), part);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return false;
  }

  Outcome wait() {
    if (!ended_) ::waitpid(pid_, &status_, 0);
    ended_ = true;
    const int code = WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_);
    return {code, read_text(out_), read_text(err_)};
  }

 private:
  bool finished() {
    if (!ended_) ended_ = ::waitpid(pid_, &status_, WNOHANG) == pid_;
    return ended_;
  }

  [[noreturn]] void exec(const std::string& program, const std::vector<std::string>& words,
                         const std::vector<std::string>& environment, const Scratch& scratch) const {
    const auto redirect = [](const fs::path& path, int stream) {
      ::dup2(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), stream);
    };
    redirect(out_, 1);
    redirect(err_, 2);
    ::unsetenv("CONFIG_FILE");
    ::setenv("HF_HOME", (scratch / "no-hub").c_str(), 1);
    ::unsetenv("HF_HUB_CACHE");
    ::setenv("XDG_CACHE_HOME", (scratch / "cache").c_str(), 1);
    for (const std::string& pair : environment)
      ::setenv(pair.substr(0, pair.find('=')).c_str(), pair.substr(pair.find('=') + 1).c_str(), 1);
    std::vector<std::string> all{(program_dir / ("parscale-" + program)).string()};
    all.insert(all.end(), words.begin(), words.end());
    std::vector<char*> argv;
    for (std::string& word : all) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }

  fs::path out_, err_;
  pid_t pid_ = -1;
  int status_ = 0;
  bool ended_ = false;
};

inline Outcome run(const Scratch& scratch, const std::string& program, const std::vector<std::string>& words,
                   const std::vector<std::string>& environment = {}) {
  Outcome outcome = Started(scratch, program, words, environment).wait();
  UNSCOPED_INFO("parscale-" << program << " ended with " << outcome.code << "\n"
                            << outcome.out << outcome.err);
  return outcome;
}

/// A model of a few ten thousand parameters, from scratch, on a page of text; everything a short run needs.
inline std::vector<std::string> tiny_run(const Scratch& scratch, const std::string& output,
                                         const std::string& layers = "2") {
  const fs::path config = scratch / "tiny.yaml", text = scratch / "page.txt";
  const std::string novel = read_text(source_dir / "data/austen/persuasion.txt");
  write_text(text, novel.substr(0, 30000));
  write_text(
      config,
      "model: {model_type: qwen2, vocab_size: 4096, hidden_size: 32, intermediate_size: 48, "
      "num_hidden_layers: " +
          layers +
          ", num_attention_heads: 2, num_key_value_heads: 1, head_dim: 64, tie_word_embeddings: true, "
          "eos_token_id: 0}\n"
          "training: {dataset: " +
          text.string() + ", tokenizer: " + (source_dir / "data/austen-bpe4096/tokenizer.json").string() +
          ", max_length: 32, per_device_train_batch_size: 2, gradient_accumulation_steps: 2, max_steps: 6, "
          "warmup_steps: 2, logging_steps: 1, learning_rate: 0.01, weight_decay: 0.1}\n");
  return {"--config", config.string(), "training.output_dir=" + (scratch / output).string()};
}

inline std::vector<std::string> operator+(std::vector<std::string> words,
                                          const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

}  // namespace parscale::test
