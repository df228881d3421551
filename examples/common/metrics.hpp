/// metrics.jsonl: one JSON object a line for everything that was measured, valid however a run ended.
#pragma once

#include <filesystem>
#include <parscale/config.hpp>
#include <parscale/io/json.hpp>
#include <string>
#include <vector>

namespace parscale::program {

/// The file of one run. Every object has an integer `step`; other keys are the program's.
class MetricsFile {
 public:
  /// Begins an empty file. Throws StorageError.
  static MetricsFile start(const std::filesystem::path& path);
  /// Goes on after `step`: drops the lines of later steps and what a kill has left half written, in one
  /// rename, and appends. A missing file is begun. Throws StorageError.
  static MetricsFile resume(const std::filesystem::path& path, Index step);

  MetricsFile(MetricsFile&& other) noexcept;
  MetricsFile& operator=(MetricsFile&& other) noexcept;
  ~MetricsFile();

  /// Appends one line in one write. Numbers that are not finite become null. Throws StorageError.
  void append(const io::Json& object);

 private:
  MetricsFile(std::filesystem::path path, const std::string& content);

  std::filesystem::path path_;
  int file_ = -1;
};

/// All whole lines of a file; a half-written last one is left out. Throws InputError when there is no file,
/// or when another line is damaged.
std::vector<io::Json> read_metrics(const std::filesystem::path& path);

}  // namespace parscale::program
