/// Is this checkpoint whole? Looks at a directory and says exactly what is wrong with it, if anything.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "checkpoint_manifest.hpp"

namespace parscale::io {

enum class Damage : std::uint8_t {
  incomplete,           ///< no manifest: a kill interrupted the writing
  manifest_unreadable,  ///< the manifest is empty, cut short or makes no sense
  manifest_altered,     ///< the manifest's content changed after it was written
  unknown_version,      ///< a checkpoint of another version of parscale
  foreign,              ///< another program's directory
  missing_file,         ///< a file that the manifest lists is not there
  wrong_size,           ///< a file was cut short or has grown
  checksum_mismatch,    ///< a file's content changed after it was written: a flipped bit
  unreadable,           ///< the system refuses to read it: permissions, a failing disk
};

/// One thing that is wrong with a checkpoint.
struct Fault {
  Damage damage = Damage::incomplete;
  std::string file = {};  ///< name of the file concerned; empty: the directory itself
  std::string text = {};  ///< the same for people, without the checkpoint's path
};

/// What an inspection found. The manifest is there when it could be read, even if files are damaged.
struct Verdict {
  std::optional<Manifest> manifest = {};
  std::vector<Fault> faults = {};

  bool good() const noexcept { return faults.empty(); }
  /// All faults on one line.
  std::string text() const {
    std::string out;
    for (const Fault& fault : faults) out += (out.empty() ? "" : "; ") + fault.text;
    return out;
  }
};

/// How closely to look. `sizes` costs no reading of the files' content and finds everything but altered
/// bytes.
enum class Depth : std::uint8_t { sizes, checksums };

namespace detail {

inline Fault fault_of(const ManifestReading& reading) {
  const std::string name = manifest_name;
  switch (reading.problem) {
    case ManifestProblem::altered:
      return {Damage::manifest_altered, name, name + " was altered after it was written: " + reading.why};
    case ManifestProblem::unknown_version:
      return {Damage::unknown_version, name, name + " is of another version of parscale: " + reading.why};
    case ManifestProblem::foreign:
      return {Damage::foreign, name, name + " is not that of a parscale checkpoint: " + reading.why};
    case ManifestProblem::unreadable:
      break;
  }
  return {Damage::manifest_unreadable, name, name + " is damaged: " + reading.why};
}

/// Reads the manifest into the verdict, or the reason why not.
inline Verdict read_manifest(const std::filesystem::path& checkpoint) {
  std::error_code error;
  const auto path = checkpoint / manifest_name;
  if (!std::filesystem::is_directory(checkpoint, error))
    return {.faults = {{Damage::unreadable, "",
                        error ? "it cannot be read: " + error.message() : "it is not a directory"}}};
  if (!std::filesystem::exists(path, error) && !error)
    return {.faults = {{Damage::incomplete, manifest_name,
                        "it has no manifest.json: the writing was interrupted, or another program made it"}}};
  try {
    ManifestReading reading = parse_manifest(read_file(path));
    if (!reading.manifest) return {.faults = {fault_of(reading)}};
    return {.manifest = std::move(reading.manifest)};
  } catch (const InputError& failure) {
    return {.faults = {{Damage::unreadable, manifest_name,
                        std::string(manifest_name) + " cannot be read: " + failure.explanation().why}}};
  }
}

inline std::optional<Fault> fault_in_size(const std::string& name, std::uint64_t expected,
                                          std::uint64_t found) {
  if (found == expected) return {};
  return Fault{Damage::wrong_size, name,
               name + (found < expected ? " is cut short: " : " has grown: ") + std::to_string(found) +
                   " bytes instead of " + std::to_string(expected)};
}

/// Compares one file with its entry.
inline std::optional<Fault> fault_in_file(const std::filesystem::path& checkpoint, const ManifestEntry& entry,
                                          Depth depth) {
  const auto& [name, expected] = entry;
  const auto path = checkpoint / name;
  std::error_code error;
  if (!std::filesystem::exists(path, error) && !error)
    return Fault{Damage::missing_file, name, name + " is missing"};
  const auto size = std::filesystem::file_size(path, error);
  if (error) return Fault{Damage::unreadable, name, name + " cannot be read: " + error.message()};
  if (auto fault = fault_in_size(name, expected.bytes, size)) return fault;
  if (depth == Depth::sizes) return {};
  try {
    const ContentSummary found = summarize_file(path);
    if (auto fault = fault_in_size(name, expected.bytes, found.bytes)) return fault;
    if (found.crc32 == expected.crc32) return {};
    return Fault{Damage::checksum_mismatch, name,
                 name + " was altered after it was written: its checksum is " + hex(found.crc32) +
                     " instead of " + hex(expected.crc32)};
  } catch (const InputError& failure) {
    return Fault{Damage::unreadable, name, name + " cannot be read: " + failure.explanation().why};
  }
}

}  // namespace detail

/// Inspects a checkpoint directory: the manifest first, then every file that it lists. Bad content is an
/// answer here, not an exception. Files that the manifest does not list are nobody's business.
inline Verdict verify_checkpoint(const std::filesystem::path& checkpoint, Depth depth = Depth::checksums) {
  Verdict verdict = detail::read_manifest(checkpoint);
  if (!verdict.manifest) return verdict;
  for (const ManifestEntry& entry : verdict.manifest->files)
    if (auto fault = detail::fault_in_file(checkpoint, entry, depth))
      verdict.faults.push_back(std::move(*fault));
  return verdict;
}

}  // namespace parscale::io
