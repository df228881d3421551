/// Do all ranks mean the same run? Version, options, data and model are compared before the first step.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "rendezvous.hpp"

namespace parscale::distributed {

/// Something that must be the same on every rank: {"training.learning_rate", "0.0003"}, {"data", "1f3a..."}.
struct Fact {
  std::string name, value;
};
using Facts = std::vector<Fact>;

namespace detail {

inline std::string to_text(const Facts& facts) {
  std::string text;
  for (const Fact& fact : facts) (text += fact.name + '\0') += fact.value + '\0';
  return text;
}

/// The value of a fact in a rank's text, or "nothing".
inline std::string find_value(std::string_view text, const std::string& name) {
  while (!text.empty()) {
    const std::string_view key = text.substr(0, text.find('\0'));
    text.remove_prefix(key.size() + 1);
    const std::string_view value = text.substr(0, text.find('\0'));
    text.remove_prefix(value.size() + 1);
    if (key == name) return std::string(value);
  }
  return "nothing";
}

inline std::string shortened(const std::string& value) {
  constexpr std::size_t longest = 80;
  return value.size() <= longest ? value : value.substr(0, longest) + "...";
}

}  // namespace detail

/// Every rank calls it with facts of the same names. Throws PeerError on all ranks when they differ anywhere,
/// naming the facts, the ranks and both values; rank 0 is the measure.
inline void check_agreement(Rendezvous& rendezvous, const Facts& facts) {
  const std::vector<std::string> texts = rendezvous.gather(detail::to_text(facts), "fingerprints");
  std::string names, differences;
  for (const Fact& fact : facts) {
    const std::string first = detail::find_value(texts.front(), fact.name);
    std::string others;
    for (std::size_t r = 1; r < texts.size(); ++r) {
      const std::string its = detail::find_value(texts[r], fact.name);
      if (its != first) others += "; " + to_string(rendezvous.roster()[r]) + " has " + detail::shortened(its);
    }
    if (others.empty()) continue;
    names += (names.empty() ? "" : ", ") + fact.name;
    differences +=
        (differences.empty() ? "" : "; ") + fact.name + ": rank 0 has " + detail::shortened(first) + others;
  }
  if (!names.empty())
    throw PeerError({.what = "The ranks do not agree on " + names,
                     .where = "rank " + std::to_string(rendezvous.launch().rank) + ", before the first step",
                     .why = differences,
                     .remedy = "start every rank with the same program, options and files"});
}

}  // namespace parscale::distributed
