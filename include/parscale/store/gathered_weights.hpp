/// Whole units of weights out of the ranks' parts: gathered when asked for, the next one ahead while blocks
/// compute, in the order of the walk: up in the forward, down in the backward.
#pragma once

#include <string>
#include <vector>

#include "../distributed/group.hpp"
#include "unit_map.hpp"

namespace parscale {

/// "layer 3", for messages.
inline std::string unit_name(Index unit, Index units) {
  return unit == 0 ? "the embedding" : unit + 1 == units ? "the top" : "layer " + std::to_string(unit - 1);
}

template <class S>
class GatheredWeights {
 public:
  GatheredWeights() = default;
  /// `group` is null when all units are whole on every rank anyway.
  GatheredWeights(distributed::Group* group, UnitMap map)
      : group_(group), map_(std::move(map)), rooms_(static_cast<std::size_t>(map_.rooms())) {}

  /// Owners have changed their parts: what was gathered is of the past.
  void outdate() { ++version_; }

  /// Gathers a unit ahead of its use.
  template <class Part, class Whole>
  void prefetch(Index unit, const Part& part, const Whole& whole) {
    if (group_ != nullptr) start(unit, part, whole);
  }

  /// The whole unit is in its place when this returns. `part(unit)` is where this rank's part lies,
  /// `whole(unit)` where the unit goes. Throws PeerError.
  template <class Part, class Whole>
  void acquire(Index unit, const Part& part, const Whole& whole) {
    if (group_ == nullptr) return;
    start(unit, part, whole);
    at(map_.room(unit)).pending.wait();
    if (const Index next = after(unit); next >= 0) start(next, part, whole);
    last_ = unit;
  }

 private:
  struct Room {
    Index unit = -1, version = -1;
    distributed::Group::Pending pending = {};
  };
  Room& at(Index room) { return rooms_[static_cast<std::size_t>(room)]; }

  template <class Part, class Whole>
  void start(Index unit, const Part& part, const Whole& whole) {
    Room& room = at(map_.room(unit));
    if (room.unit == unit && room.version == version_) return;
    room.unit = unit;
    room.version = version_;
    room.pending = group_->all_gather(distributed::AllGather<S>{.part = part(unit),
                                                                .whole = whole(unit),
                                                                .parts = map_.parts(unit),
                                                                .padded = map_.parts(unit).stride() > 0,
                                                                .what = unit_name(unit, map_.units())});
  }

  /// The unit to gather ahead while `unit` is used; -1: none. The walk is embedding, layers up, top, layers
  /// down; a tied head asks for the embedding between layers and top.
  Index after(Index unit) {
    const Index top = map_.units() - 1;
    if (unit == 0) return last_ == top || last_ == top - 1 ? -1 : 1;
    if (unit == top) return -1;
    if (unit != last_) down_ = last_ != 0 && unit < last_;
    if (!down_) return unit + 1;
    return unit > 1 ? unit - 1 : -1;
  }

  distributed::Group* group_ = nullptr;
  UnitMap map_;
  std::vector<Room> rooms_;
  Index version_ = 0, last_ = -1;
  bool down_ = false;
};

}  // namespace parscale
