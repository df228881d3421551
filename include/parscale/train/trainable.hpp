/// Which parameters are trained: all, or those whose names match.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "../core/error.hpp"

namespace parscale {

/// A list like "prefix,aggregate" or "model.layers.*.mlp": a name matches when one of the comma-separated
/// patterns occurs in it; `*` stands for any characters. Empty: every name matches.
class Trainable {
 public:
  Trainable() = default;
  explicit Trainable(std::string_view list) {
    while (!list.empty()) {
      const std::size_t comma = list.find(',');
      std::string_view pattern = list.substr(0, comma);
      while (pattern.starts_with(' ')) pattern.remove_prefix(1);
      while (pattern.ends_with(' ')) pattern.remove_suffix(1);
      if (!pattern.empty()) patterns_.emplace_back(pattern);
      list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
    }
  }

  bool operator()(std::string_view name) const {
    for (const std::string& pattern : patterns_)
      if (matches("*" + pattern + "*", name)) return true;
    return patterns_.empty();
  }
  bool everything() const { return patterns_.empty(); }
  const std::vector<std::string>& patterns() const { return patterns_; }

 private:
  /// Glob match with `*` alone: on a mismatch, let the last star take one more character.
  static bool matches(std::string_view pattern, std::string_view name) {
    std::size_t p = 0, n = 0, star = std::string_view::npos, taken = 0;
    while (n < name.size()) {
      if (p < pattern.size() && pattern[p] == '*') {
        star = p++;
        taken = n;
      } else if (p < pattern.size() && pattern[p] == name[n]) {
        ++p, ++n;
      } else if (star != std::string_view::npos) {
        p = star + 1;
        n = ++taken;
      } else {
        return false;
      }
    }
    while (p < pattern.size() && pattern[p] == '*') ++p;
    return p == pattern.size();
  }

  std::vector<std::string> patterns_;
};

}  // namespace parscale
