/// Tokenised text that outlives the process: a part of a text file is tokenised once and afterwards mapped
/// from the cache folder. What is outdated or damaged there is made anew.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../core/cache_folder.hpp"
#include "../core/error.hpp"
#include "checksum.hpp"
#include "documents.hpp"
#include "hash.hpp"
#include "source_stamp.hpp"
#include "text_files.hpp"
#include "token_part.hpp"

namespace parscale::io {

/// How text becomes tokens.
struct TextEncoder {
  std::function<std::vector<std::int32_t>(std::string_view)> encode;
  std::uint64_t fingerprint = 0;                         ///< changes whenever `encode` may give other tokens
  std::optional<std::int32_t> end_token = std::nullopt;  ///< put behind every document
};

struct TokenCacheOptions {
  std::filesystem::path folder = default_cache_folder();  ///< empty: keep tokens in memory only
  std::string text_field = "text";
  /// A part ends with the document that reaches this much text, so that the first rows of a file of any
  /// size are there at once.
  std::uint64_t part_bytes = std::uint64_t{16} << 20;
  /// Hears of files made anew and of a folder that cannot be written.
  std::function<void(const std::string&)> notice = [](const std::string&) {};
};

namespace detail {

inline constexpr const char* unfinished_ending = ".unfinished";

/// Writes a part so that other processes see all of it or nothing, even when this one is killed meanwhile.
/// Throws StorageError or std::filesystem::filesystem_error.
inline void write_aside_and_rename(const TokenPart& part, const std::filesystem::path& path) {
  std::filesystem::create_directories(path.parent_path());
  const std::string unique = "." + std::to_string(::getpid()) + "-" + std::to_string(std::random_device()());
  const std::filesystem::path aside = path.string() + unique + unfinished_ending;
  try {
    part.write(aside);
    std::filesystem::rename(aside, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(aside, ignored);
    throw;
  }
}

/// Removes what killed processes left unfinished; a file younger than a day may still be in the making.
inline void remove_leftovers(const std::filesystem::path& folder) {
  const auto yesterday = std::filesystem::file_time_type::clock::now() - std::chrono::hours(24);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().extension() != unfinished_ending) continue;
    const auto modified = entry.last_write_time(ignored);
    if (!ignored && modified < yesterday) std::filesystem::remove(entry.path(), ignored);
  }
}

}  // namespace detail

/// Gives the tokens of text files part by part, from the folder when it has them. Any number of processes may
/// share a folder.
class TokenCache {
 public:
  TokenCache(TextEncoder encoder, TokenCacheOptions options)
      : encoder_(std::move(encoder)), options_(std::move(options)), writable_(!options_.folder.empty()) {
    if (writable_) detail::remove_leftovers(options_.folder);
  }

  /// The part of `file` that begins at `begin`: at its start (`{}`) or at the end of the part before. Throws
  /// InputError when the text cannot be read.
  std::shared_ptr<const TokenPart> open(const TextFile& file, const Place& begin) {
    const PartKey key{.recipe = recipe_for(file), .source = stamp_of(file.path), .begin = begin};
    const auto kept = in_memory_.find({key.recipe, begin.byte});
    if (kept != in_memory_.end() && kept->second->description().key == key) return kept->second;
    const std::filesystem::path path = path_of(file, key);
    if (auto part = from_folder(path, key)) return part;
    std::shared_ptr<const TokenPart> part = encode(file, key);
    if (!into_folder(path, *part)) in_memory_[{key.recipe, begin.byte}] = part;
    return part;
  }

 private:
  /// A reader that stands where the next part begins, so that a packed file is unpacked only once.
  struct Reading {
    PartKey next;
    DocumentReader reader;
  };

  /// Everything but the source's content that decides a part's tokens.
  std::uint64_t recipe_for(const TextFile& file) const {
    return Hash()
        .add(std::filesystem::absolute(file.path).lexically_normal().string())
        .add(options_.text_field)
        .add(options_.part_bytes)
        .add(encoder_.fingerprint)
        .add(encoder_.end_token ? std::to_string(*encoder_.end_token) : "none")
        .value();
  }

  /// Readable for people: the source's name comes first, and the parts of one file lie side by side.
  std::filesystem::path path_of(const TextFile& file, const PartKey& key) const {
    const std::string recipe =
        hex(static_cast<std::uint32_t>(key.recipe >> 32)) + hex(static_cast<std::uint32_t>(key.recipe));
    return options_.folder /
           (file.name.substr(0, 40) + "-" + recipe + "-" + std::to_string(key.begin.byte) + ".tokens");
  }

  std::shared_ptr<const TokenPart> from_folder(const std::filesystem::path& path, const PartKey& key) const {
    std::error_code ignored;
    if (options_.folder.empty() || !std::filesystem::exists(path, ignored)) return nullptr;
    try {
      return std::make_shared<const TokenPart>(path, key);
    } catch (const Error& error) {
      options_.notice("Token cache: made anew, " + error.explanation().why + " (" + path.string() + ")");
      return nullptr;
    }
  }

  /// False when the part has to stay in memory.
  bool into_folder(const std::filesystem::path& path, const TokenPart& part) {
    if (!writable_) return false;
    try {
      detail::write_aside_and_rename(part, path);
    } catch (const Error& error) {
      give_up_writing(error.explanation().why);
    } catch (const std::filesystem::filesystem_error& error) {
      give_up_writing(error.code().message());
    }
    return writable_;
  }

  void give_up_writing(const std::string& why) {
    writable_ = false;
    options_.notice("Warning: the token cache cannot be written, tokens stay in memory: " + why + " (" +
                    options_.folder.string() + ")");
  }

  std::shared_ptr<const TokenPart> encode(const TextFile& file, const PartKey& key) {
    auto reading = std::exchange(reading_, std::nullopt);
    if (!reading || reading->next != key)
      reading.emplace(Reading{key, DocumentReader(file, options_.text_field, key.begin)});
    PartDescription description{.key = key};
    std::vector<std::int32_t> tokens;
    std::vector<std::uint64_t> ends;
    std::uint64_t bytes = 0;
    for (std::string text; bytes < options_.part_bytes; bytes += text.size()) {
      description.last = reading->reader.next(text) ? 0 : 1;
      if (description.last == 1) break;
      const std::vector<std::int32_t> document = encoder_.encode(text);
      tokens.insert(tokens.end(), document.begin(), document.end());
      if (encoder_.end_token) tokens.push_back(*encoder_.end_token);
      if (tokens.size() > (ends.empty() ? 0 : ends.back())) ends.push_back(tokens.size());
    }
    description.end = reading->next.begin = reading->reader.place();
    if (description.last == 0) reading_ = std::move(reading);
    return std::make_shared<const TokenPart>(description, std::move(tokens), std::move(ends));
  }

  TextEncoder encoder_;
  TokenCacheOptions options_;
  bool writable_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::shared_ptr<const TokenPart>> in_memory_;
  std::optional<Reading> reading_;
};

}  // namespace parscale::io
