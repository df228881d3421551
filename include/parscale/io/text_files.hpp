/// Which files a data set consists of: files, folders and globs become a list of text files.
#pragma once

#include <glob.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../core/error.hpp"

namespace parscale::io {

/// How a file is packed.
enum class Compression { none, gzip, zstd };

/// A source of documents.
struct TextFile {
  std::filesystem::path path;
  /// File name without .gz or .zst (packing a file does not change which data it is), unique in its data set.
  std::string name;
  Compression compression = Compression::none;
  bool one_document_a_line = false;  ///< .jsonl; otherwise the whole file is one document
};

inline constexpr const char* text_file_kinds = ".txt, .jsonl, .txt.gz, .jsonl.gz, .txt.zst, .jsonl.zst";

/// What the ending of a file's name says about it; nothing when it is no text file.
inline std::optional<TextFile> as_text_file(const std::filesystem::path& path) {
  TextFile file{.path = path, .name = path.filename().string()};
  if (path.extension() == ".gz") file.compression = Compression::gzip;
  if (path.extension() == ".zst") file.compression = Compression::zstd;
  if (file.compression != Compression::none) file.name = path.stem().string();
  const std::string kind = std::filesystem::path(file.name).extension().string();
  file.one_document_a_line = kind == ".jsonl";
  if (kind != ".txt" && kind != ".jsonl") return std::nullopt;
  return file;
}

namespace detail {

/// The files that one pattern leads to, sorted, text or not.
class FileSearch {
 public:
  explicit FileSearch(const std::string& pattern) : pattern_(pattern) {
    try {
      // A path that exists is taken literally, even when its name holds [ or *.
      if (std::filesystem::exists(pattern)) {
        add(pattern);
      } else {
        for (const std::filesystem::path& match : matches()) add(match);
      }
    } catch (const std::filesystem::filesystem_error& error) {
      throw InputError({.what = "The data set cannot be searched for files",
                        .where = error.path1().empty() ? pattern : error.path1().string(),
                        .why = error.code().message()});
    }
    std::sort(files_.begin(), files_.end());
  }

  const std::vector<std::filesystem::path>& files() const { return files_; }

 private:
  void add(const std::filesystem::path& path) {
    if (!std::filesystem::is_directory(path)) {
      files_.push_back(path);
      return;
    }
    for (auto entry = std::filesystem::recursive_directory_iterator(path);
         entry != std::filesystem::recursive_directory_iterator(); ++entry) {
      const bool hidden = entry->path().filename().string().front() == '.';
      if (hidden && entry->is_directory()) entry.disable_recursion_pending();
      if (!hidden && entry->is_regular_file()) files_.push_back(entry->path());
    }
  }

  std::vector<std::filesystem::path> matches() const {
    glob_t found{};
    const int result = ::glob(pattern_.c_str(), GLOB_ERR | GLOB_BRACE | GLOB_TILDE, nullptr, &found);
    std::vector<std::filesystem::path> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
    ::globfree(&found);
    if (result == 0 || result == GLOB_NOMATCH) return paths;
    throw InputError({.what = "The pattern leads through a folder that cannot be read", .where = pattern_});
  }

  std::string pattern_;
  std::vector<std::filesystem::path> files_;
};

[[noreturn]] inline void fail_to_find(const std::string& pattern,
                                      const std::vector<std::filesystem::path>& others) {
  std::set<std::string> endings;
  for (const auto& path : others)
    endings.insert(path.has_extension() ? path.extension().string() : "(no ending)");
  std::string seen;
  for (const std::string& ending : endings) {
    if (seen.size() > 200) {
      seen += ", ...";
      break;
    }
    seen += (seen.empty() ? "" : ", ") + ending;
  }
  throw InputError(
      {.what = "The data set holds no text file",
       .where = pattern.empty() ? "(an empty path)" : pattern,
       .why = others.empty() ? "no file is there" : "files are there, but their endings are " + seen,
       .remedy = std::string("give a file, folder or glob of ") + text_file_kinds});
}

}  // namespace detail

/// Finds the text files of `sources`: each a file, a folder (searched to its depth, without hidden files and
/// folders) or a glob. In the order of the sources, sorted by path within each, each file once. Throws
/// InputError when a source leads to no text file, naming the endings that are there.
inline std::vector<TextFile> find_text_files(const std::vector<std::string>& sources) {
  std::vector<TextFile> found;
  std::set<std::filesystem::path> seen;
  std::map<std::string, int> namesakes;
  for (const std::string& source : sources) {
    const detail::FileSearch search(source);
    bool any = false;
    for (const std::filesystem::path& path : search.files()) {
      std::optional<TextFile> file = as_text_file(path);
      any = any || file.has_value();
      if (!file || !seen.insert(std::filesystem::absolute(path).lexically_normal()).second) continue;
      const int number = ++namesakes[file->name];
      if (number > 1) file->name += " (" + std::to_string(number) + ")";
      found.push_back(*std::move(file));
    }
    if (!any) detail::fail_to_find(source, search.files());
  }
  return found;
}

}  // namespace parscale::io
