/// Writing files as many processes: what one of them cannot do fails for all.
#pragma once

#include <string>
#include <vector>

#include "../distributed/group.hpp"

namespace parscale::io {

/// Runs `work`, which returns a text, and hears what all others have, in rank order. Throws StorageError on
/// all processes when it failed on any, naming the first one. `what` was to be saved.
template <class Work>
std::vector<std::string> report_together(distributed::Group& group, const std::string& what, Work&& work) {
  std::string mine;
  try {
    mine = "+" + work();
  } catch (const PeerError&) {
    throw;  // nobody hears us
  } catch (const Error& error) {
    const Explanation& e = error.explanation();
    mine = "-" + e.what + (e.where.empty() ? "" : " (" + e.where + ")") + (e.why.empty() ? "" : ": " + e.why);
  }
  auto texts = distributed::gather_texts(group, mine);
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    if (texts[rank].starts_with('-'))
      throw StorageError({.what = what + " was not saved: " + texts[rank].substr(1),
                          .where = "rank " + std::to_string(rank),
                          .remedy = "all ranks need the output folder on one file system with room"});
    texts[rank].erase(0, 1);
  }
  return texts;
}

}  // namespace parscale::io
