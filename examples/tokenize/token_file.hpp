/// Text files as one flat tensor of tokens.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <parscale/io/durable_directory.hpp>
#include <parscale/io/file.hpp>
#include <parscale/io/safetensors_writer.hpp>
#include <parscale/io/tokenizer.hpp>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace parscale::program {

/// Appends the tokens of a file. Throws InputError that names the file.
inline void tokenize_file(const io::Tokenizer& tokenizer, const std::filesystem::path& path,
                          std::vector<std::int32_t>& ids) {
  const io::MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  try {
    tokenizer.encode(text, ids);
  } catch (const InputError& error) {
    Explanation e = error.explanation();
    e.where = path.string() + ", " + e.where;
    throw InputError(e);
  }
}

/// The tokens of several files, one after the other, `end_token` behind each if there is one.
inline std::vector<std::int32_t> tokenize_files(const io::Tokenizer& tokenizer,
                                                const std::vector<std::filesystem::path>& paths,
                                                std::optional<std::int32_t> end_token) {
  std::vector<std::int32_t> ids;
  for (const auto& path : paths) {
    tokenize_file(tokenizer, path, ids);
    if (end_token) ids.push_back(*end_token);
  }
  return ids;
}

/// A file that takes its name only when it is complete; abandoned, it vanishes and leaves an older one alone.
class FileAside {
 public:
  explicit FileAside(std::filesystem::path final_path)
      : final_path_(std::move(final_path)), path_(final_path_) {
    path_ += ".writing-" + std::to_string(::getpid());
  }
  FileAside(const FileAside&) = delete;
  FileAside& operator=(const FileAside&) = delete;
  ~FileAside() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }

  const std::filesystem::path& path() const { return path_; }
  void take_name() const { io::rename_durably(path_, final_path_); }

 private:
  std::filesystem::path final_path_;
  std::filesystem::path path_;
};

/// Writes `input_ids` [N]. Throws StorageError; a file that exists is replaced only by a complete one.
inline void write_token_file(const std::filesystem::path& path, const std::vector<std::int32_t>& ids,
                             io::Dtype dtype, const io::Tokenizer& tokenizer) {
  const FileAside aside(path);
  io::SafetensorsWriter writer(aside.path(), {{"input_ids", dtype, {static_cast<Index>(ids.size())}}},
                               {{"tokenizer_fingerprint", std::to_string(tokenizer.fingerprint())}});
  writer.write(std::span<const std::int32_t>(ids));
  writer.finish();
  aside.take_name();
}

}  // namespace parscale::program
