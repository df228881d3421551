/// Who shares a model, and how.
#pragma once

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

  bool together() const { return world > 1; }
  /// Whether a rank owns less than everything.
  bool shares() const { return together() && sharding != Sharding::none; }
  /// Whether whole layers exist only around their use.
  bool gathers_layers() const { return together() && sharding == Sharding::full; }
};

struct Ranks {
  distributed::Group* group = nullptr;  ///< must outlive the model; null: alone
  Sharding sharding = Sharding::full;
  bool deterministic = false;

  int rank() const { return group == nullptr ? 0 : group->rank(); }
  Division division() const { return {group == nullptr ? 1 : group->size(), sharding, deterministic}; }
};

}  // namespace parscale
