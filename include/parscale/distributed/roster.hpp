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
