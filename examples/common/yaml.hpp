/// YAML as a tree in which every value knows where it stands, read strictly: what yaml-cpp lets through
/// silently (the second of two equal keys, an unclosed quote, a second document) is an error here.
#pragma once

#include <filesystem>
#include <parscale/io/json.hpp>
#include <string>
#include <vector>

namespace parscale::program {

/// One value. Scalars stay the text that was written: what `010` or `1e-05` means is for the key to say.
struct YamlNode {
  enum class Kind { null, scalar, sequence, mapping };

  Kind kind = Kind::null;
  std::string text = {};             ///< of a scalar
  bool quoted = false;               ///< written in quotes or as a block: certainly a text
  std::vector<YamlNode> items = {};  ///< of a sequence or a mapping, in the order of the file
  std::string where = {};            ///< "configs/basic.yaml, line 12, column 3"
  std::string key = {};              ///< in a mapping: the key that the value stands under; keys are distinct
  std::string key_where = {};

  /// Nothing was given: empty, `~`, `null`, or Python's `None`.
  bool is_null() const { return kind == Kind::null || (kind == Kind::scalar && !quoted && text == "None"); }
};

/// How errors name the place of a value.
struct YamlSource {
  std::string name;       ///< a path, or a word of the command line
  bool has_lines = true;  ///< whether line and column say something
};

/// Parses one document; an empty text is a null node. Throws ConfigurationError with the place: broken syntax
/// or UTF-8, duplicate keys, several documents, tags, keys that are no plain text, nesting beyond 16 levels.
YamlNode parse_yaml(const std::string& text, const YamlSource& source);

/// Parses a file. Throws ConfigurationError, also when it cannot be read or is larger than 1 MiB.
YamlNode read_yaml(const std::filesystem::path& path);

/// The value with plain scalars resolved to null, booleans, integers, numbers or text. Throws
/// ConfigurationError for numbers that could be meant in two ways (010) or are not finite.
io::Json to_json(const YamlNode& node);

/// A one-line text for errors: `'abc'`, `a list`, `nothing`.
std::string describe(const YamlNode& node);

}  // namespace parscale::program
