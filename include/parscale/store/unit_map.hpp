/// Where a model's elements lie when ranks share them: each unit (the embedding, each layer, the top) is one
/// flat range of elements, cut into consecutive parts, one a rank. Arithmetic only: no memory, no shapes.
#pragma once

#include <algorithm>
#include <vector>

#include "../core/stretch.hpp"
#include "../distributed/partition.hpp"

namespace parscale {

/// What ranks share out. The more, the less memory each needs, and the more they exchange.
enum class Sharding {
  none,       ///< nothing: every rank has all, gradients are summed
  optimizer,  ///< moments and master weights; every rank has all weights that blocks read and all gradients
  full,       ///< everything; whole layers exist only around the moment of their use
  hybrid,     ///< everything among the ranks of a host; every host has a copy
};

/// How the elements that are chosen out of a range are shared when the whole range is shared as `parts`:
/// whoever owns an element there owns it here.
inline distributed::Partition shared_like(const distributed::Partition& parts,
                                          const std::vector<Stretch>& chosen) {
  std::vector<Index> counts;
  Index total = 0;
  for (int rank = 0; rank < parts.world(); ++rank) {
    Index n = 0;
    for (const Stretch& s : chosen) n += s.meet({parts.first(rank), parts.count(rank)}).count;
    counts.push_back(n);
    total += n;
  }
  return total == parts.total() ? parts : distributed::Partition(counts);
}

class UnitMap {
 public:
  /// Whole units lie one after the other, or layers take turns in two places between embedding and top; the
  /// last two may take turns in one.
  enum class Places { each_its_own, layers_in_turn, ends_in_turn };

  UnitMap() = default;
  UnitMap(std::vector<distributed::Partition> parts, int rank, Places places)
      : parts_(std::move(parts)), rank_(rank), placing_(places) {
    for (const auto& unit : parts_) {
      own_.push_back(own_size_);
      own_size_ += unit.stride() > 0 ? unit.stride() : unit.count(rank);
    }
    if (places == Places::each_its_own)
      place_each();
    else
      place_in_turn(places == Places::ends_in_turn);
  }

  /// The same parts in other places.
  UnitMap placed(Places places) const { return {parts_, rank_, places}; }
  /// The same for another rank.
  UnitMap seen_by(int rank) const { return {parts_, rank, placing_}; }

  Index units() const { return static_cast<Index>(parts_.size()); }
  const distributed::Partition& parts(Index unit) const { return parts_[at(unit)]; }
  /// This rank's part of a unit.
  Stretch own(Index unit) const { return {parts(unit).first(rank_), parts(unit).count(rank_)}; }

  /// Where the unit's part begins in memory that holds the own parts, which has own_size() elements.
  Index own_place(Index unit) const { return own_[at(unit)]; }
  Index own_size() const { return own_size_; }

  /// Where the whole unit begins in memory that holds whole units, which has whole_size() elements; and which
  /// of the rooms() there it takes.
  Index place(Index unit) const { return places_[at(room(unit))]; }
  Index room(Index unit) const { return rooms_[at(unit)]; }
  Index rooms() const { return static_cast<Index>(places_.size()); }
  Index whole_size() const { return whole_size_; }

 private:
  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }

  void add_room(Index size) {
    places_.push_back(whole_size_);
    whole_size_ += size;
  }
  void place_each() {
    for (Index unit = 0; unit < units(); ++unit) {
      rooms_.push_back(unit);
      add_room(parts(unit).padded());
    }
  }
  // Rooms: 0 the embedding, 1 and 2 the layers, 3 or 0 the top.
  void place_in_turn(bool ends_too) {
    const Index last = units() - 1, top = parts(last).padded();
    Index largest = 0;
    for (Index unit = 1; unit < last; ++unit) largest = std::max(largest, parts(unit).padded());
    add_room(ends_too ? std::max(parts(0).padded(), top) : parts(0).padded());
    for (int i = 0; i < 2; ++i) add_room(largest);
    if (!ends_too) add_room(top);
    for (Index unit = 0; unit <= last; ++unit)
      rooms_.push_back(unit == 0 ? 0 : unit < last ? 1 + (unit - 1) % 2 : ends_too ? 0 : 3);
  }

  std::vector<distributed::Partition> parts_;
  int rank_ = 0;
  Places placing_ = Places::each_its_own;
  std::vector<Index> own_, rooms_, places_;
  Index own_size_ = 0, whole_size_ = 0;
};

}  // namespace parscale
