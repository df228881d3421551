#include "metrics.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <parscale/core/error.hpp>
#include <parscale/io/file.hpp>
#include <string_view>
#include <utility>

namespace parscale::program {
namespace {

/// The lines of a text, each without its end; the last may lack one.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

/// Null when the line is no JSON: the end of a file may be cut off.
io::Json parse_line(std::string_view line) {
  try {
    return io::parse_json(line, "");
  } catch (const InputError&) {
    return nullptr;
  }
}

bool is_measurement(const io::Json& object) {
  return object.contains("step") && object["step"].is_number_integer();
}

/// What of a file belongs to the steps up to `last`: whole lines only.
std::string kept_lines(const std::string& content, Index last) {
  std::string kept;
  for (const std::string_view line : lines_of(content)) {
    const io::Json object = parse_line(line);
    if (is_measurement(object) && object["step"].get<Index>() <= last) kept += std::string(line) + "\n";
  }
  return kept;
}

/// Puts the content under its name so that at any instant the old or the new file is there.
void replace_file(const std::filesystem::path& path, const std::string& content) {
  std::filesystem::path aside = path;
  aside += ".new";
  io::OutputFile file(aside);
  file.write(content);
  file.close();
  std::error_code error;
  std::filesystem::rename(aside, path, error);
  if (error)
    throw StorageError(
        {.what = "The metrics file cannot be replaced", .where = path.string(), .why = error.message()});
  io::sync_directory(path.parent_path());
}

}  // namespace

MetricsFile::MetricsFile(std::filesystem::path path, const std::string& content) : path_(std::move(path)) {
  replace_file(path_, content);
  file_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file_ < 0) io::detail::fail_to_write(path_, errno);
}

MetricsFile MetricsFile::start(const std::filesystem::path& path) { return MetricsFile(path, ""); }

MetricsFile MetricsFile::resume(const std::filesystem::path& path, Index step) {
  if (!std::filesystem::exists(path)) return start(path);
  return MetricsFile(path, kept_lines(io::read_file(path), step));
}

MetricsFile::MetricsFile(MetricsFile&& other) noexcept
    : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}

MetricsFile& MetricsFile::operator=(MetricsFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  return *this;
}

MetricsFile::~MetricsFile() {
  if (file_ >= 0) ::close(file_);
}

void MetricsFile::append(const io::Json& object) {
  const std::string line = object.dump() + "\n";
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t count = ::write(file_, rest.data(), rest.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) io::detail::fail_to_write(path_, errno);
    rest.remove_prefix(static_cast<std::size_t>(count));
  }
}

std::vector<io::Json> read_metrics(const std::filesystem::path& path) {
  const std::string content = io::read_file(path);
  const auto lines = lines_of(content);
  std::vector<io::Json> out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    io::Json object = parse_line(lines[i]);
    const bool half_written = i + 1 == lines.size() && content.back() != '\n';
    if (is_measurement(object)) {
      out.push_back(std::move(object));
    } else if (!half_written) {
      throw InputError({.what = "A line of the metrics is damaged",
                        .where = path.string() + ", line " + std::to_string(i + 1),
                        .remedy = "remove the line"});
    }
  }
  return out;
}

}  // namespace parscale::program
