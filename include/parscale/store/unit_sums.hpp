/// The sum of a unit's gradients over the ranks: among those who divide one copy of the model, and among
/// those who own the same part of other copies; in the wide type, or rounded to bfloat16 on the way.
#pragma once

#include <vector>

#include "../backend/backend.hpp"
#include "gathered_weights.hpp"
#include "ranks.hpp"

namespace parscale {

/// How gradients get from blocks to owners.
enum class Reduction {
  nothing,     ///< one rank: blocks add to what the optimiser reads
  every_pass,  ///< whole units exist for a moment only; the owners' sums go on from pass to pass
  last_pass,   ///< every rank adds up all its passes; the sum of the ranks is taken once, for the owners
  replicate,   ///< the same, for everybody
  afterwards,  ///< somebody else does it
};

inline Reduction reduction_of(const Division& d) {
  if (d.deterministic) return Reduction::afterwards;
  if (!d.together()) return Reduction::nothing;
  if (!d.shares()) return Reduction::replicate;
  return d.gathers_layers() ? Reduction::every_pass : Reduction::last_pass;
}

/// A backend that can round wide numbers to bfloat16 and back.
template <class B>
concept RoundsWide = requires(B& on, In<Wide<B>> in, Out<BFloat16> rounded, In<BFloat16> arrived,
                              Out<Wide<B>> out) {
  on.round_wide(in, rounded);
  on.widen(arrived, out, /*add=*/true);
};

/// One sum: this rank's summand, and where its part of the result goes, which may be a place in `whole`.
template <class W>
struct UnitSum {
  Index unit = -1;
  W *whole = nullptr, *part = nullptr;
  bool continues = false;  ///< earlier passes are in `part` already
  bool last = true;        ///< of the step: the copies' sums are added, too
};

template <class B>
class UnitSums {
  using W = Wide<B>;
  using Pending = distributed::Group::Pending;

 public:
  UnitSums() = default;
  /// `map` says whose the elements are, and which sums run beside each other: those that share no room.
  UnitSums(const Circles& circles, UnitMap map, const Division& division, B& on)
      : map_(std::move(map)),
        group_(division.shares() ? circles.owners() : circles.all()),
        twins_(circles.twins()),
        reduction_(reduction_of(division)),
        rounds_(rounds(division)),
        rounded_(on.allocate(size<BFloat16>(rounds_ ? map_.whole_size() : 0))),
        rounded_parts_(on.allocate(size<BFloat16>(rounds_ && twins_ != nullptr ? map_.own_size() : 0))),
        rooms_(at(map_.rooms())) {
    if (division.rounds_gradients && !RoundsWide<B>)
      throw ConfigurationError(
          {.what = "training.gradient_reduction_dtype=bfloat16 needs a backend that rounds"});
  }

  static bool rounds(const Division& d) {
    const Reduction how = reduction_of(d);
    return d.rounds_gradients && how != Reduction::nothing && how != Reduction::afterwards;
  }
  static std::size_t bytes(const UnitMap& map, const Division& d) {
    const bool several_copies = d.shares() && d.owners() < d.world;
    const std::size_t rounded = size<BFloat16>(map.whole_size() + (several_copies ? map.own_size() : 0));
    return rounds(d) ? rounded : 0;
  }

  /// Whether sums are rounded, so that earlier passes stay out of them.
  bool rounds() const { return rounds_; }

  void start(const UnitSum<W>& sum, B& on) {
    settle(sum.unit, on);
    const auto& parts = map_.parts(sum.unit);
    Room& room = rooms_[at(map_.room(sum.unit))];
    room.sum = sum;
    if (!rounds_) {
      room.pending = reduce(sum.unit, sum.whole, sum.part);
    } else if constexpr (RoundsWide<B>) {
      BFloat16* const rounded = data(rounded_) + map_.place(sum.unit);
      on.round_wide({sum.whole, {parts.total()}}, {rounded, {parts.total()}});
      room.pending = reduce(sum.unit, rounded, rounded + map_.own(sum.unit).first);
    }
  }

  /// The sum that was started last in the room of `unit` has come: its whole may be used again.
  void settle(Index unit, B& on) { settle(rooms_[at(map_.room(unit))], on); }

  /// All sums are complete when this returns.
  void finish(B& on) {
    for (Room& room : rooms_) settle(room, on);
    for (Across& across : across_) {
      across.pending.wait();
      if constexpr (RoundsWide<B>)
        if (rounds_) on.widen(rounded_part(across.sum.unit).readable(), own_part(across.sum), false);
    }
    across_.clear();
  }

 private:
  struct Room {
    UnitSum<W> sum = {};
    Pending pending = {};
  };
  struct Across {
    UnitSum<W> sum;
    Pending pending;
  };
  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }
  template <class T>
  static std::size_t size(Index elements) {
    return at(elements) * sizeof(T);
  }
  static BFloat16* data(typename B::Buffer& buffer) { return reinterpret_cast<BFloat16*>(buffer.data()); }
  View<W> own_part(const UnitSum<W>& sum) const { return {sum.part, {map_.own(sum.unit).count}}; }
  View<BFloat16> rounded_part(Index unit) {
    return {data(rounded_parts_) + map_.own_place(unit), {map_.own(unit).count}};
  }

  void settle(Room& room, B& on) {
    const UnitSum<W> sum = std::exchange(room.sum, {});
    if (sum.unit < 0) return;
    room.pending.wait();
    if constexpr (RoundsWide<B>)
      if (rounds_) take_rounded(sum, on);
    if (sum.last && twins_ != nullptr && map_.own(sum.unit).count > 0) start_across(sum, on);
  }

  template <class T>
  Pending reduce(Index unit, T* whole, T* part) {
    const auto& parts = map_.parts(unit);
    const std::string what = "gradients of " + unit_name(unit, map_.units());
    if (reduction_ == Reduction::replicate)
      return group_->all_reduce(
          distributed::AllReduce<T>{.values = whole, .count = parts.total(), .what = what});
    return group_->reduce_scatter(distributed::ReduceScatter<T>{
        .whole = whole, .part = part, .parts = parts, .padded = parts.stride() > 0, .what = what});
  }

  /// What has arrived goes to the part or, of everybody's sum, to the whole.
  void take_rounded(const UnitSum<W>& sum, B& on) {
    const BFloat16* const rounded = data(rounded_) + map_.place(sum.unit);
    const Stretch own = map_.own(sum.unit);
    const Stretch mine = reduction_ == Reduction::replicate ? Stretch{0, map_.parts(sum.unit).total()} : own;
    W* const to = reduction_ == Reduction::replicate ? sum.whole : sum.part;
    if (mine.count > 0) on.widen({rounded + mine.first, {mine.count}}, {to, {mine.count}}, sum.continues);
  }

  template <class T>
  Pending sum_copies(Index unit, View<T> part) {
    return twins_->all_reduce(
        distributed::AllReduce<T>{.values = part.data,
                                  .count = part.count(),
                                  .what = "copies' gradients of " + unit_name(unit, map_.units())});
  }
  void start_across(const UnitSum<W>& sum, B& on) {
    if (!rounds_) {
      across_.push_back({sum, sum_copies(sum.unit, own_part(sum))});
    } else if constexpr (RoundsWide<B>) {
      on.round_wide(own_part(sum).readable(), rounded_part(sum.unit));
      across_.push_back({sum, sum_copies(sum.unit, rounded_part(sum.unit))});
    }
  }

  UnitMap map_;
  distributed::Group *group_ = nullptr, *twins_ = nullptr;
  Reduction reduction_ = Reduction::nothing;
  bool rounds_ = false;
  typename B::Buffer rounded_{}, rounded_parts_{};
  std::vector<Room> rooms_;  // after the memory that their pending operations use, as the next
  std::vector<Across> across_;
};

}  // namespace parscale
