/// The table of all keys: everything that reads, checks, prints or explains options walks through it.
#pragma once

#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "options.hpp"
#include "options_types.hpp"

namespace parscale::program {

/// What becomes of a key when it is given.
enum class Verdict {
  supported,  ///< it is a value of Options
  mapped,     ///< it is another way to set supported keys
  no_effect,  ///< accepted with a note
  refused,    ///< only its harmless value is accepted
};

struct Key {
  std::string section;
  std::string name;
  std::string type;
  std::string help;
  Verdict verdict;
  bool verbatim;  ///< see Type
  bool is_flag;   ///< see Type
  std::function<void(Options&, const YamlNode&)> apply;
  std::function<std::string(const Options&)> print;  ///< YAML; supported keys only

  std::string full_name() const { return section + "." + name; }
};

/// All keys, in the order in which they are applied and printed.
const std::vector<Key>& option_keys();
/// The key named "section.name", or null.
const Key* find_key(const std::string& full_name);

/// The fields of Hugging Face's TrainingArguments that are not supported by their own name.
std::vector<Key> huggingface_keys();

/// Whether `key` was given, and later than `other`: then it decides.
bool outweighs(const Options& options, std::string_view key, std::string_view other);

/// A key of type T with a verdict, and what happens when it is given: `act(options, value)`.
template <class T, class Act>
Key make_key(const char* section, const char* name, const Type<T>& type, const char* help, Verdict verdict,
             Act act) {
  const auto apply = [type, act, full_name = std::string(section) + "." + name](Options& options,
                                                                                const YamlNode& node) {
    act(options, type.read({full_name, node}));
  };
  return {section, name, type.name, help, verdict, type.verbatim, type.is_flag, apply, nullptr};
}

}  // namespace parscale::program
