#include "yaml.hpp"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <parscale/core/error.hpp>
#include <parscale/io/file.hpp>
#include <parscale/io/unicode.hpp>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>

#include "numbers.hpp"

namespace parscale::program {
namespace {

constexpr std::size_t deepest = 16;
constexpr std::size_t most_nodes = 100'000;
constexpr std::size_t most_bytes = std::size_t{1} << 20;

std::string place(const YamlSource& source, int line, int column) {
  if (!source.has_lines || line < 0) return source.name;
  return source.name + ", line " + std::to_string(line + 1) + ", column " + std::to_string(column + 1);
}

/// Refuses what yaml-cpp drops or replaces without a word: control characters, broken UTF-8, directives.
void check_characters(std::string_view text, const YamlSource& source) {
  int line = 0, column = 0;
  for (std::size_t i = 0; i < text.size(); ++column) {
    const char c = text[i];
    const auto refuse = [&](const char* what, const char* remedy) {
      throw ConfigurationError({.what = what, .where = place(source, line, column), .remedy = remedy});
    };
    const io::Utf8Step step = io::utf8_step(text.substr(i));
    if (step.kind != io::Utf8Step::Kind::character)
      refuse("This is not UTF-8 text", "save the file as UTF-8");
    if ((c >= 0 && c < ' ' && c != '\t' && c != '\n' && c != '\r') || c == '\x7f')
      refuse("A control character has no place in a configuration", "remove it");
    if (c == '%' && column == 0 && source.has_lines)
      refuse("YAML directives (a line that starts with %) are not supported", "remove the line");
    i += step.length;
    if (c == '\n') ++line, column = -1;
  }
}

/// Builds the tree from the parser's events.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(std::string_view text, const YamlSource& source) : text_(text), source_(source) {}

  YamlNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1)
      fail(mark, "A configuration is one YAML document", "remove everything after the second ---");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(mark, anchor, {}); }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const bool quoted = tag == "!";
    check_tag(mark, tag);
    if (quoted) check_quote_is_closed(mark);
    add(mark, anchor, {.kind = YamlNode::Kind::scalar, .text = value, .quoted = quoted});
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) fail(mark, "An alias cannot stand inside of what it names", "");
    add(mark, 0, found->second);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::sequence);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::mapping);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

 private:
  /// A sequence or mapping whose end has not come yet; `key` waits for its value.
  struct Open {
    YamlNode node;
    YAML::anchor_t anchor = 0;
    YAML::Mark mark = {};
    std::set<std::string> keys = {};
    bool has_key = false;
    std::string key = {};
    std::string key_where = {};
  };

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    check_tag(mark, tag);
    if (open_.size() == deepest)
      fail(mark, "The YAML is nested more than " + std::to_string(deepest) + " levels deep", "");
    open_.push_back({.node = {.kind = kind}, .anchor = anchor, .mark = mark});
  }

  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    add(done.mark, done.anchor, std::move(done.node));
  }

  /// Puts a finished value where it belongs: the document, a list, or one side of a mapping.
  void add(const YAML::Mark& mark, YAML::anchor_t anchor, YamlNode node) {
    node.where = place(source_, mark.line, mark.column);
    nodes_ += count(node);
    if (nodes_ > most_nodes) fail(mark, "The YAML grows beyond all measure through its aliases", "");
    if (anchor != 0) anchors_[anchor] = node;
    if (open_.empty()) {
      root_ = std::move(node);
    } else if (Open& parent = open_.back(); parent.node.kind == YamlNode::Kind::sequence) {
      parent.node.items.push_back(std::move(node));
    } else if (!parent.has_key) {
      begin_entry(mark, parent, node);
    } else {
      node.key = std::move(parent.key);
      node.key_where = std::move(parent.key_where);
      parent.node.items.push_back(std::move(node));
      parent.has_key = false;
    }
  }

  void begin_entry(const YAML::Mark& mark, Open& mapping, const YamlNode& key) {
    if (key.kind != YamlNode::Kind::scalar)
      fail(mark, "A key must be a word", "write the key as text: before a colon");
    if (key.text == "<<" && !key.quoted)
      fail(mark, "Merge keys (<<) are not supported", "write the keys out");
    if (!mapping.keys.insert(key.text).second)
      fail(mark, "The key '" + key.text + "' is given twice", "keep one of the two");
    mapping.key = key.text;
    mapping.key_where = key.where;
    mapping.has_key = true;
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (!tag.empty() && tag != "!" && tag != "?")
      fail(mark, "YAML tags (" + tag + ") are not supported", "remove the tag; quote a value that is text");
  }

  /// yaml-cpp ends an unclosed quote at the end of the file, and the rest of the file is gone.
  void check_quote_is_closed(const YAML::Mark& mark) const {
    std::size_t at = offset_of(mark);
    while (at < text_.size() && text_[at] != '\'' && text_[at] != '"' && text_[at] != '|' && text_[at] != '>')
      ++at;
    if (at == text_.size() || text_[at] == '|' || text_[at] == '>') return;
    const char quote = text_[at];
    for (++at; at < text_.size(); ++at) {
      if (quote == '"' && text_[at] == '\\') {
        ++at;
      } else if (text_[at] == quote) {
        if (quote == '"' || at + 1 == text_.size() || text_[at + 1] != quote) return;
        ++at;
      }
    }
    fail(mark, "A quote is opened here and never closed", std::string("add the closing ") + quote);
  }

  std::size_t offset_of(const YAML::Mark& mark) const {
    std::size_t at = text_.substr(0, 3) == "\xEF\xBB\xBF" ? 3 : 0;
    for (int line = 0; line < mark.line; ++line) at = text_.find('\n', at) + 1;
    for (int column = 0; column < mark.column && at < text_.size(); ++column)
      at += io::utf8_step(text_.substr(at)).length;
    return at;
  }

  static std::size_t count(const YamlNode& node) {
    std::size_t n = 1;
    for (const YamlNode& item : node.items) n += count(item);
    return n;
  }

  [[noreturn]] void fail(const YAML::Mark& mark, std::string what, std::string remedy) const {
    throw ConfigurationError({.what = std::move(what),
                              .where = place(source_, mark.line, mark.column),
                              .remedy = std::move(remedy)});
  }

  std::string_view text_;
  const YamlSource& source_;
  YamlNode root_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, YamlNode> anchors_;
  std::size_t nodes_ = 0;
  int documents_ = 0;
};

io::Json resolve_plain(const YamlNode& node) {
  const std::string& text = node.text;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  const Number number = read_number(text);
  if (number.kind == Number::Kind::integer) return number.integer;
  if (number.kind == Number::Kind::real) return number.real;
  if (number.kind == Number::Kind::text) return text;
  throw ConfigurationError({.what = "This number cannot be used",
                            .where = node.where,
                            .why = describe(node) + " " + number.why,
                            .remedy = "write a decimal number, or quote the value if it is text"});
}

}  // namespace

YamlNode parse_yaml(const std::string& text, const YamlSource& source) {
  check_characters(text, source);
  TreeBuilder tree(text, source);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(tree)) continue;
  } catch (const YAML::Exception& error) {
    std::string remedy =
        text.find('\t') != text.npos ? "indent with spaces: YAML does not allow tabs there" : "";
    if (!source.has_lines) remedy = "quote a value that has spaces or brackets: 'key=[0, 6]'";
    throw ConfigurationError({.what = "This is not valid YAML",
                              .where = place(source, error.mark.line, error.mark.column),
                              .why = error.msg,
                              .remedy = remedy});
  }
  return tree.take();
}

YamlNode read_yaml(const std::filesystem::path& path) {
  std::string text;
  try {
    text = io::read_file(path);
  } catch (const InputError& error) {
    throw ConfigurationError(
        {.what = "The configuration file cannot be read",
         .where = path.string(),
         .why = error.explanation().why.empty() ? error.explanation().what : error.explanation().why,
         .remedy = "check $CONFIG_FILE and --config"});
  }
  if (text.size() > most_bytes)
    throw ConfigurationError({.what = "The configuration file is too large",
                              .where = path.string(),
                              .why = std::to_string(text.size()) + " bytes, the limit is 1 MiB",
                              .remedy = "check that this is the file you meant"});
  return parse_yaml(text, {.name = path.string()});
}

io::Json to_json(const YamlNode& node) {
  if (node.is_null()) return nullptr;
  if (node.kind == YamlNode::Kind::scalar) return node.quoted ? io::Json(node.text) : resolve_plain(node);
  const bool is_list = node.kind == YamlNode::Kind::sequence;
  io::Json out = is_list ? io::Json::array() : io::Json::object();
  for (const YamlNode& item : node.items) (is_list ? out.push_back(nullptr) : out[item.key]) = to_json(item);
  return out;
}

std::string describe(const YamlNode& node) {
  if (node.is_null()) return "nothing (null)";
  if (node.kind == YamlNode::Kind::sequence) return "a list";
  if (node.kind == YamlNode::Kind::mapping) return "a mapping of keys";
  constexpr std::size_t longest = 60;
  const bool cut = node.text.size() > longest;
  return "'" + node.text.substr(0, longest) + (cut ? "...'" : "'") + (node.quoted ? " in quotes" : "");
}

}  // namespace parscale::program
