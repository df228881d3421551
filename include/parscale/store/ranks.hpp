/// Who shares a model, and how.
#pragma once

#include <algorithm>
#include <memory>
#include <string>

#include "../core/error.hpp"
#include "../distributed/group.hpp"
#include "unit_map.hpp"

namespace parscale {

/// How a model is divided; known before there is anybody to divide it among.
struct Division {
  int world = 1;
  Sharding sharding = Sharding::full;
  /// The same bits for any number of ranks: micro-batches are single sequences, whose gradients are added in
  /// a tree over the global batch.
  bool deterministic = false;
  int host_ranks = 1;             ///< hybrid: so many consecutive ranks share one copy
  bool rounds_gradients = false;  ///< to bfloat16, where ranks add them
  Index sequences = 0;            ///< of the global batch; only the plan of the deterministic mode asks

  bool together() const { return world > 1; }
  /// Ranks among whom one copy of the model is divided.
  int owners() const {
    if (sharding == Sharding::none) return 1;
    return sharding == Sharding::hybrid ? std::clamp(host_ranks, 1, world) : world;
  }
  /// Whether a rank owns less than everything.
  bool shares() const { return owners() > 1; }
  /// Whether whole layers exist only around their use.
  bool gathers_layers() const { return shares() && sharding != Sharding::optimizer; }
};

struct Ranks {
  distributed::Group* group = nullptr;  ///< must outlive the model; null: alone
  Sharding sharding = Sharding::full;
  bool deterministic = false;
  int host_ranks = 1;
  bool rounds_gradients = false;

  int rank() const { return group == nullptr ? 0 : group->rank(); }
  Division division() const {
    return {.world = group == nullptr ? 1 : group->size(),
            .sharding = sharding,
            .deterministic = deterministic,
            .host_ranks = host_ranks,
            .rounds_gradients = rounds_gradients};
  }
};

/// With whom a rank exchanges what. Ranks are numbered host by host.
class Circles {
 public:
  /// All ranks call it. Throws ConfigurationError when they cannot be divided into hosts of equal size.
  explicit Circles(const Ranks& ranks) {
    const Division division = ranks.division();
    if (!division.together()) return;
    all_ = ranks.group;
    if (division.shares()) owners_ = all_;
    if (division.sharding != Sharding::hybrid) return;
    const int each = division.owners();
    if (division.world % each != 0)
      throw ConfigurationError(
          {.what = "training.sharding=hybrid needs the same number of ranks on each host",
           .why = std::to_string(division.world) + " ranks are no multiple of " + std::to_string(each),
           .remedy = "use training.sharding=full, or another sharding_group_size"});
    if (each == 1 || each == division.world) return;
    host_ = all_->split(ranks.rank() / each);
    across_ = all_->split(ranks.rank() % each);
    owners_ = host_.get();
  }

  /// Null: alone.
  distributed::Group* all() const { return all_; }
  /// Those among whom this rank's copy is divided; null: it has the whole.
  distributed::Group* owners() const { return owners_; }
  /// Those who own the same part of other copies; null: there are none, or each rank has a copy.
  distributed::Group* twins() const { return across_.get(); }

 private:
  distributed::Group *all_ = nullptr, *owners_ = nullptr;
  std::unique_ptr<distributed::Group> host_, across_;
};

}  // namespace parscale
