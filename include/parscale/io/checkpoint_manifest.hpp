/// The manifest of a checkpoint: what the directory must hold for the checkpoint to be whole. It is written
/// last and seals itself, so that a flipped bit in it is found as surely as one in the files it lists:
///
///     {
///       "format": "parscale checkpoint",
///       "version": 1,
///       "step": 20,
///       "written": 1760000000000000,
///       "files": {"model.safetensors": {"bytes": 4096, "crc32": "89abcdef"}, ...},
///       "metadata": {"host": "node7", ...},
///       "crc32_of_all_above": "01234567"
///     }
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../config.hpp"
#include "checksum.hpp"
#include "json.hpp"

namespace parscale::io {

inline constexpr const char* manifest_name = "manifest.json";
inline constexpr const char* manifest_format = "parscale checkpoint";
inline constexpr Index manifest_version = 1;

/// One file of a checkpoint, as it was when it was written.
struct ManifestEntry {
  std::string name;  ///< a plain file name, no folders
  ContentSummary content;
  bool operator==(const ManifestEntry&) const = default;
};

struct Manifest {
  Index step = 0;     ///< optimiser steps done
  Index written = 0;  ///< when, in microseconds since 1970: the newest checkpoint has the highest
  std::vector<ManifestEntry> files = {};
  std::map<std::string, std::string> metadata = {};  ///< free text: host, command line, date
  bool operator==(const Manifest&) const = default;

  std::uint64_t bytes() const {
    std::uint64_t sum = 0;
    for (const ManifestEntry& file : files) sum += file.content.bytes;
    return sum;
  }
};

/// Whether a file may carry this name: it stays inside the checkpoint and is not the manifest itself.
inline bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name != manifest_name &&
         name.find('/') == name.npos && name.find('\0') == name.npos;
}

/// The length and checksum of a finished file, as a manifest lists it. Whoever wrote the file calls this:
/// several processes may fill one directory and hand these entries to the one that commits. Throws
/// StorageError when it cannot be read back.
inline ManifestEntry entry_of(const std::filesystem::path& file) {
  try {
    return {file.filename().string(), summarize_file(file)};
  } catch (const InputError& error) {
    throw StorageError(error.explanation());
  }
}

namespace detail {

inline constexpr std::string_view seal_key = ",\n  \"crc32_of_all_above\": \"";
inline constexpr std::string_view seal_end = "\"\n}\n";

/// Closes a JSON object that still lacks its last brace with a checksum of everything before.
inline std::string sealed(std::string_view open_object) {
  return std::string(open_object) + std::string(seal_key) + hex(crc32_of(open_object)) +
         std::string(seal_end);
}

enum class Seal : std::uint8_t { absent, broken, whole };

/// The rule of the seal holds for every version of the format, so that an unknown version is never confused
/// with a flipped bit.
inline Seal seal_of(std::string_view text) {
  const std::size_t key = text.rfind(seal_key);
  if (key == text.npos) return Seal::absent;
  return text == sealed(text.substr(0, key)) ? Seal::whole : Seal::broken;
}

}  // namespace detail

/// The text of manifest.json.
inline std::string text_of(const Manifest& manifest) {
  Json files = Json::object();
  for (const ManifestEntry& file : manifest.files)
    files[file.name] = {{"bytes", file.content.bytes}, {"crc32", hex(file.content.crc32)}};
  const Json json = {{"format", manifest_format}, {"version", manifest_version},
                     {"step", manifest.step},     {"written", manifest.written},
                     {"files", std::move(files)}, {"metadata", manifest.metadata}};
  std::string text = json.dump(2);
  text.resize(text.size() - std::string_view("\n}").size());
  return detail::sealed(text);
}

/// Why a text is not a manifest that this version can use.
enum class ManifestProblem : std::uint8_t {
  unreadable,       ///< cut short, empty, or fields that make no sense
  altered,          ///< its own checksum does not fit: its content changed
  unknown_version,  ///< whole, written by another version of the format
  foreign,          ///< JSON of some other program
};

/// Either a manifest, or the problem with it in words.
struct ManifestReading {
  std::optional<Manifest> manifest = {};
  ManifestProblem problem = ManifestProblem::unreadable;
  std::string why = {};
};

namespace detail {

/// Fields of a sealed manifest; nullopt when one is missing or of the wrong kind.
inline std::optional<Manifest> manifest_fields(const Json& json) {
  try {
    Manifest manifest;
    manifest.step = json.at("step").get<Index>();
    manifest.written = json.at("written").get<Index>();
    for (const auto& [name, file] : json.at("files").members()) {
      const auto digits = file.at("crc32").get<std::string>();
      const auto crc32 = static_cast<std::uint32_t>(std::stoul(digits, nullptr, 16));
      if (!is_plain_file_name(name) || digits != hex(crc32)) return {};
      manifest.files.push_back({name, {file.at("bytes").get<std::uint64_t>(), crc32}});
    }
    for (const auto& [name, value] : json.at("metadata").members())
      manifest.metadata.emplace(name, value.text());
    return manifest;
  } catch (const InputError&) {
  } catch (const std::logic_error&) {  // std::stoul
  }
  return {};
}

/// Whether a JSON object names itself a manifest of ours, of whatever version.
inline bool is_ours(const Json& json) {
  return json.is_object() && json.contains("format") && json["format"] == manifest_format;
}

inline ManifestReading read_sealed_manifest(const Json& json) {
  const std::string version = json.contains("version") ? shown(json["version"]) : "unknown";
  if (version != std::to_string(manifest_version))
    return {.problem = ManifestProblem::unknown_version,
            .why = "it has version " + version + ", this program reads version " +
                   std::to_string(manifest_version)};
  auto manifest = manifest_fields(json);
  if (!manifest) return {.why = "its fields are not those of version 1"};
  return {.manifest = std::move(manifest)};
}

}  // namespace detail

/// Reads the text of a manifest and says what is wrong with it, if anything. Does not throw on bad content.
inline ManifestReading parse_manifest(std::string_view text) {
  const ManifestReading altered{.problem = ManifestProblem::altered,
                                .why = "its own checksum does not fit its content"};
  const detail::Seal seal = detail::seal_of(text);
  if (seal == detail::Seal::broken) return altered;
  if (text.empty()) return {.why = "it is empty"};
  try {
    const Json json = parse_json(text, manifest_name);
    if (!detail::is_ours(json))
      return {.problem = ManifestProblem::foreign, .why = "some other program wrote it"};
    return seal == detail::Seal::whole ? detail::read_sealed_manifest(json) : altered;
  } catch (const InputError& error) {
    return {.why = error.explanation().what + ": " + error.explanation().why};
  }
}

}  // namespace parscale::io
