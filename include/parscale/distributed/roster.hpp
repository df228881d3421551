/// Who is in the run: every rank with its host and process, as messages name them.
#pragma once

#include <unistd.h>

#include <string>
#include <vector>

#include "launch.hpp"
#include "socket.hpp"

namespace parscale::distributed {

struct Member {
  int rank = 0;
  int local_rank = 0;
  int local_world = 1;
  std::string host = {};
  int process = 0;

  bool operator==(const Member&) const = default;
};
using Roster = std::vector<Member>;  ///< by rank

inline Member own_member(const Launch& launch) {
  return {launch.rank, launch.local_rank, launch.local_world, host_name(), static_cast<int>(::getpid())};
}

/// "rank 3 (process 1234 on host a)".
inline std::string to_string(const Member& member) {
  return "rank " + std::to_string(member.rank) + " (process " + std::to_string(member.process) + " on " +
         member.host + ")";
}
/// The same as the beginning of a sentence.
inline std::string subject(const Member& member) {
  std::string text = to_string(member);
  text[0] = 'R';
  return text;
}

/// "0-2, 5".
inline std::string ranges(const std::vector<int>& ranks) {
  std::string text;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    text += (text.empty() ? "" : ", ") + std::to_string(ranks[i]);
    if (end - i > 1) text += "-" + std::to_string(ranks[end - 1]);
    i = end;
  }
  return text;
}

/// How many consecutive ranks each host has. Throws ConfigurationError when hosts differ, or share ranks out
/// in another way.
inline int ranks_of_a_host(const Roster& roster) {
  const auto each = static_cast<std::size_t>(roster.front().local_world);
  for (std::size_t r = 0; r < roster.size(); ++r)
    if (const Member& first = roster[r - r % each]; roster.size() % each != 0 ||
                                                    roster[r].host != first.host ||
                                                    static_cast<std::size_t>(roster[r].local_world) != each)
      throw ConfigurationError(
          {.what = "training.sharding=hybrid needs the same number of consecutive ranks on each host",
           .where = to_string(roster[r]),
           .remedy = "let the launcher fill one host after the other, or set training.sharding_group_size"});
  return static_cast<int>(each);
}

// As texts of a message, five a member.
inline void append(std::vector<std::string>& texts, const Member& m) {
  for (const int number : {m.rank, m.local_rank, m.local_world, m.process})
    texts.push_back(std::to_string(number));
  texts.push_back(m.host);
}
/// Throws std::exception when the texts are no member.
inline Member read_member(const std::vector<std::string>& texts, std::size_t first) {
  return {.rank = std::stoi(texts.at(first)),
          .local_rank = std::stoi(texts.at(first + 1)),
          .local_world = std::stoi(texts.at(first + 2)),
          .host = texts.at(first + 4),
          .process = std::stoi(texts.at(first + 3))};
}

}  // namespace parscale::distributed
