/// JSON files. json_value is what they hold, json_parse and json_text how it is read and written.
#pragma once

#include <filesystem>
#include <string>

#include "../core/error.hpp"
#include "file.hpp"
#include "json_parse.hpp"
#include "json_text.hpp"
#include "json_value.hpp"

namespace parscale::io {

/// Parses a file. Throws InputError, also when it cannot be read.
inline Json read_json(const std::filesystem::path& path) {
  return parse_json(read_file(path), path.string());
}

/// Writes a value over several lines, as people like to read it, and makes it durable. Throws StorageError,
/// and ConfigurationError before anything is written.
inline void write_json(const std::filesystem::path& path, const Json& value) {
  const std::string text = to_text(value, 2) + "\n";
  OutputFile file(path);
  file.write(text);
  file.close();
}

}  // namespace parscale::io
