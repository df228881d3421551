/// Gradients of whole units, lent to blocks and summed over the ranks: each rank keeps the sum for its part,
/// or for all. A unit's sum starts when its last block of the pass has given it back, beside the computation
/// of the next one.
#pragma once

#include <exception>
#include <vector>

#include "../backend/backend.hpp"
#include "../distributed/group.hpp"
#include "gathered_weights.hpp"
#include "unit_map.hpp"

namespace parscale {

/// How gradients get from blocks to owners.
enum class Reduction {
  nothing,     ///< one rank: blocks add to what the optimiser reads
  every_pass,  ///< whole units exist for a moment only; sums over ranks go on from pass to pass
  last_pass,   ///< every rank adds up all its passes; the sum of the ranks is taken once, for the owners
  replicate,   ///< the same, for everybody
  afterwards,  ///< somebody else does it
};

template <class B>
class ReducedGradients {
  using W = Wide<B>;
  using Pending = distributed::Group::Pending;

 public:
  ReducedGradients() = default;
  ReducedGradients(distributed::Group* group, UnitMap map, Reduction reduction, B& on)
      : map_(std::move(map)),
        group_(group),
        reduction_(reduction),
        whole_(on.allocate(bytes(map_.whole_size()))),
        parts_(on.allocate(bytes(reduction == Reduction::every_pass ? map_.own_size() : 0))),
        rooms_(static_cast<std::size_t>(map_.rooms())) {
    zero(on);
  }

  const UnitMap& map() const { return map_; }
  W* whole(Index unit) { return data(whole_) + map_.place(unit); }
  View<W> all() { return {data(whole_), {map_.whole_size()}}; }
  /// The sum over all ranks of this rank's part of a unit.
  W* part(Index unit) {
    if (reduction_ == Reduction::every_pass) return data(parts_) + map_.own_place(unit);
    return whole(unit) + map_.own(unit).first;
  }

  /// All gradients are zero.
  void zero(B& on) {
    passes_ = 0;
    accumulates_ = true;
    if (reduction_ == Reduction::every_pass) return;
    if (map_.whole_size() > 0) on.fill_zero(all());
  }
  /// Before the first pass of a step, or of a sum that somebody else takes: what lies there is of no use.
  void renew() {
    passes_ = 0;
    accumulates_ = false;
  }
  /// Whether this rank has a micro-batch for the pass that begins, and whether it is the last one of the step
  /// on every rank.
  void begin_pass(bool own, bool last) {
    own_ = own;
    last_ = last;
  }
  /// Whether blocks add to what they are lent, or write over it.
  bool accumulates() const { return accumulates_; }

  /// Makes ready for blocks: zeros or what is to go on where they add, or where none will come.
  void open(Index unit, B& on) {
    const Index count = map_.parts(unit).total();
    const bool untouched = !own_ && !accumulates_;
    if (unit + 2 == map_.units()) reduce(map_.units() - 1);  // layers begin: the top is complete
    Room& room = at(unit);
    if (reduction_ != Reduction::every_pass || (room.unit == unit && room.open)) {
      if (untouched && !room.open && count > 0) on.fill_zero({whole(unit), {count}});
      room = {.unit = unit, .open = true, .pending = std::move(room.pending)};
      return;
    }
    room.pending.wait();
    room.unit = unit;
    room.open = true;
    if (count > 0 && (accumulates_ || untouched)) on.fill_zero({whole(unit), {count}});
    const Stretch own = map_.own(unit);
    if (passes_ > 0 && own.count > 0)  // earlier passes go on in their owner's summand
      on.copy_wide({part(unit), {own.count}}, {whole(unit) + own.first, {own.count}});
  }
  /// A block has added. What fails here is thrown by finish().
  void close(Index unit) noexcept {
    const bool layer = unit > 0 && unit + 1 < map_.units();
    if (!layer) return;  // the head, the aggregation and the embedding share these; they end later
    try {
      reduce(unit);
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  /// The pass is over; after the last one the sums are complete.
  void finish() {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    reduce(map_.units() - 1);
    reduce(0);
    ++passes_;
    accumulates_ = true;
    if (!last_) return;
    for (Room& room : rooms_) room.pending.wait();
  }

 private:
  struct Room {
    Index unit = -1;
    bool open = false;
    Pending pending = {};
  };
  static std::size_t bytes(Index elements) { return static_cast<std::size_t>(elements) * sizeof(W); }
  static W* data(typename B::Buffer& buffer) { return reinterpret_cast<W*>(buffer.data()); }
  Room& at(Index unit) { return rooms_[static_cast<std::size_t>(map_.room(unit))]; }

  void reduce(Index unit) {
    Room& room = at(unit);
    if (!std::exchange(room.open, false)) return;
    if (const bool now = reduction_ == Reduction::every_pass || last_; now && map_.parts(unit).total() > 0)
      room.pending = start(unit);
  }
  Pending start(Index unit) {
    const auto& parts = map_.parts(unit);
    const std::string what = "gradients of " + unit_name(unit, map_.units());
    if (reduction_ == Reduction::every_pass || reduction_ == Reduction::last_pass)
      return group_->reduce_scatter(distributed::ReduceScatter<W>{.whole = whole(unit),
                                                                  .part = part(unit),
                                                                  .parts = parts,
                                                                  .padded = parts.stride() > 0,
                                                                  .what = what});
    if (reduction_ == Reduction::replicate)
      return group_->all_reduce(
          distributed::AllReduce<W>{.values = whole(unit), .count = parts.total(), .what = what});
    return {};
  }

  UnitMap map_;
  distributed::Group* group_ = nullptr;
  Reduction reduction_ = Reduction::nothing;
  typename B::Buffer whole_{}, parts_{};
  std::vector<Room> rooms_;  // after the memory that their pending operations use
  std::exception_ptr failure_;
  Index passes_ = 0;
  bool accumulates_ = true, own_ = true, last_ = true;
};

}  // namespace parscale
