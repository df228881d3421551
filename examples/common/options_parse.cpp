/// From YAML files and words of the command line to Options: collect the last word about each key, then apply
/// the words in the order of the table.

#include <cstdlib>
#include <parscale/core/error.hpp>

#include "options.hpp"
#include "options_rules.hpp"
#include "options_table.hpp"

namespace parscale::program {
namespace {

/// The last word about every key, and the `model` section.
class Collection {
 public:
  void add_file(const std::filesystem::path& path) {
    ++rank_;
    const YamlNode root = read_yaml(path);
    if (root.is_null()) return;
    if (root.kind != YamlNode::Kind::mapping)
      throw ConfigurationError({.what = "A configuration consists of sections of keys",
                                .where = root.where,
                                .why = "the file is " + describe(root),
                                .remedy = "write\ntraining:\n  max_steps: 200"});
    for (const YamlNode& section : root.items) add_section(section);
  }

  void add_words(const std::vector<std::string>& words) {
    ++rank_;
    for (std::size_t i = 0; i < words.size(); ++i) add_word(words, i);
  }

  Options options() const {
    Options out;
    for (const auto& [name, given] : last_) out.given[name] = given.origin;
    for (const Key& key : option_keys())
      if (const auto found = last_.find(key.full_name()); found != last_.end())
        key.apply(out, found->second.node);
    if (has_model_) out.model = model_;
    return out;
  }

 private:
  struct Last {
    YamlNode node;
    Origin origin;
  };

  void add_section(const YamlNode& section) {
    if (section.key == "model") return set_model(section);
    if (section.key != "parscale" && section.key != "training")
      refuse_unknown(section.key, section.key_where);
    if (section.is_null()) return;
    if (section.kind != YamlNode::Kind::mapping)
      throw ConfigurationError(
          {.what = "The section " + section.key + " must hold keys and values",
           .where = section.where,
           .why = "it is " + describe(section),
           .remedy = "indent the keys of a section by two spaces, with a space after each colon"});
    for (const YamlNode& value : section.items) {
      const std::string name = section.key + "." + value.key;
      if (find_key(name) == nullptr) refuse_unknown(name, value.key_where);
      last_[name] = {value, {value.where, rank_}};
    }
  }

  /// `key=value`, `--key=value`, `--key value`, `--flag`; `i` moves on when the value is a word of its own.
  void add_word(const std::vector<std::string>& words, std::size_t& i) {
    const std::string& word = words[i];
    const bool dashes = word.starts_with("--");
    const std::string body = dashes ? word.substr(2) : word;
    const std::size_t equals = body.find('=');
    const std::string name = body.substr(0, equals);
    if (!dashes && (equals == body.npos || word.starts_with("-"))) refuse_stray(word);
    const Key* key = find_key(name);
    const bool is_model = name == "model" || name.starts_with("model.");
    if (key == nullptr && !is_model) refuse_unknown(name, "command line: " + word);
    if (equals != body.npos) return add_value(name, key, body.substr(equals + 1), word);
    const bool alone = i + 1 == words.size() || words[i + 1].starts_with("--");
    const bool before_assignment = !alone && is_assignment(words[i + 1]);
    if (key != nullptr && key->is_flag && (alone || before_assignment))
      return add_value(name, key, "true", word);
    if (alone)
      throw ConfigurationError({.what = name + " needs a value",
                                .where = "command line: " + word,
                                .remedy = "write " + name + "=VALUE"});
    ++i;
    add_value(name, key, words[i], word + " " + words[i]);
  }

  void add_value(const std::string& name, const Key* key, const std::string& value, const std::string& word) {
    const YamlSource source{.name = "command line: " + word, .has_lines = false};
    const bool quoted = value.size() > 1 && (value[0] == '"' || value[0] == '\'') && value.back() == value[0];
    YamlNode node;
    if (key != nullptr && key->verbatim && !quoted && value != "null" && value != "~" && !value.empty()) {
      node = {.kind = YamlNode::Kind::scalar, .text = value};
    } else {
      node = parse_yaml(value, source);
    }
    node.where = source.name;
    if (key == nullptr) return name == "model" ? set_model(node) : set_model_key(name.substr(6), node);
    last_[name] = {node, {source.name, rank_}};
  }

  /// Keys of a later source are laid over those of an earlier one; null drops the section.
  void set_model(const YamlNode& section) {
    if (section.is_null()) {
      has_model_ = false;
      model_ = io::Json::object();
      std::erase_if(last_, [](const auto& entry) { return entry.first.starts_with("model"); });
      return;
    }
    if (section.kind != YamlNode::Kind::mapping)
      throw ConfigurationError({.what = "The section model must hold the keys of a config.json",
                                .where = section.where,
                                .why = "it is " + describe(section)});
    for (const YamlNode& value : section.items) set_model_key(value.key, value);
  }

  void set_model_key(const std::string& name, const YamlNode& value) {
    if (name.empty() || name.find('.') != name.npos)
      throw ConfigurationError({.what = "model." + name + " is not the name of a key of config.json",
                                .where = value.where,
                                .remedy = "give the whole value of the first part, as {key: value}"});
    model_[name] = to_json(value);
    has_model_ = true;
    for (const std::string& key : {std::string("model"), "model." + name})
      last_[key] = {{}, {value.where, rank_}};
  }

  static bool is_assignment(const std::string& word) {
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    return equals != word.npos && (find_key(name) != nullptr || name.starts_with("model."));
  }

  [[noreturn]] static void refuse_stray(const std::string& word) {
    throw ConfigurationError(
        {.what = "The word '" + word + "' is not an option",
         .where = "command line",
         .why = "options are written section.key=value, --section.key=value or --section.key value",
         .remedy = "quote values that have spaces: 'parscale.parscale_cross_attn_layers=[0, 6]'; --help "
                   "lists all"});
  }

  /// Names the key that was probably meant: the same name in another section, or the nearest one.
  [[noreturn]] static void refuse_unknown(const std::string& name, const std::string& where) {
    std::string bare = name.substr(name.rfind('.') + 1);
    for (char& c : bare) c = c == '-' ? '_' : c;
    std::vector<std::string> names;
    for (const Key& key : option_keys()) names.push_back(key.name);
    for (const char* section : {"parscale", "training", "model"}) names.emplace_back(section);
    const std::string near = nearest(bare, names);
    std::string meant;
    for (const Key& key : option_keys())
      if (key.name == near) meant = key.full_name();
    if (meant.empty()) meant = near;
    throw ConfigurationError(
        {.what = "The key '" + name + "' does not exist",
         .where = where,
         .remedy = meant.empty() ? "--help lists all keys; the sections are parscale, training and model"
                                 : "did you mean " + meant + "?"});
  }

  std::map<std::string, Last> last_;
  io::Json model_ = io::Json::object();
  bool has_model_ = false;
  int rank_ = 0;
};

/// Takes `--config FILE` and `--config=FILE` out of the words.
std::vector<std::filesystem::path> take_files(std::vector<std::string>& words) {
  std::vector<std::filesystem::path> files;
  std::vector<std::string> others;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i].starts_with("--config=")) {
      files.emplace_back(words[i].substr(9));
    } else if (words[i] == "--config") {
      if (++i == words.size())
        throw ConfigurationError({.what = "--config needs the name of a YAML file", .where = "command line"});
      files.emplace_back(words[i]);
    } else {
      others.push_back(words[i]);
    }
  }
  words = others;
  return files;
}

}  // namespace

Options parse_options(const std::vector<std::filesystem::path>& files, const std::vector<std::string>& words,
                      Machine machine) {
  Collection collection;
  std::vector<std::string> assignments = words;
  const auto more_files = take_files(assignments);
  for (const auto& file : files) collection.add_file(file);
  for (const auto& file : more_files) collection.add_file(file);
  collection.add_words(assignments);
  Options options = collection.options();
  apply_rules(options, machine);
  return options;
}

Options parse_program_options(const std::vector<std::string>& words, Machine machine) {
  const char* file = std::getenv("CONFIG_FILE");
  if (file == nullptr || *file == '\0') return parse_options({}, words, machine);
  return parse_options({file}, words, machine);
}

}  // namespace parscale::program
