/// Gradients of whole units, lent to blocks and summed over the ranks: each rank keeps the sum for its part,
/// or for all. A unit's sum starts when its last block of the pass has given it back, beside the computation
/// of the next one.
#pragma once

#include <exception>
#include <utility>
#include <vector>

#include "unit_sums.hpp"

namespace parscale {

template <class B>
class ReducedGradients {
  using W = Wide<B>;

 public:
  ReducedGradients() = default;
  /// `sums` knows the same units, and units that share a room here share one there.
  ReducedGradients(UnitMap map, Reduction reduction, UnitSums<B> sums, B& on)
      : map_(std::move(map)),
        reduction_(reduction),
        whole_(on.allocate(bytes(map_.whole_size()))),
        parts_(on.allocate(bytes(reduction == Reduction::every_pass ? map_.own_size() : 0))),
        rooms_(static_cast<std::size_t>(map_.rooms())),
        sums_(std::move(sums)) {
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
    if (unit + 2 == map_.units()) reduce(map_.units() - 1, on);  // layers begin: the top is complete
    Room& room = at(unit);
    if (room.open && room.unit == unit) return;
    sums_.settle(unit, on);
    room = {unit, true};
    const bool moves_on = reduction_ == Reduction::every_pass;
    const Index count = map_.parts(unit).total();
    if (count > 0 && (accumulates_ ? moves_on : !own_)) on.fill_zero({whole(unit), {count}});
    const Stretch own = map_.own(unit);
    if (moves_on && accumulates_ && passes_ > 0 &&
        own.count > 0)  // earlier passes go on in the owner's summand
      on.copy_wide({part(unit), {own.count}}, {whole(unit) + own.first, {own.count}});
  }
  /// A block has added. What fails here is thrown by finish().
  void close(Index unit, B& on) noexcept {
    const bool layer = unit > 0 && unit + 1 < map_.units();
    if (!layer) return;  // the head, the aggregation and the embedding share these; they end later
    try {
      reduce(unit, on);
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  /// The pass is over; after the last one the sums are complete.
  void finish(B& on) {
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    reduce(map_.units() - 1, on);
    reduce(0, on);
    ++passes_;
    accumulates_ = !sums_.rounds() || reduction_ != Reduction::every_pass;
    if (last_) sums_.finish(on);
  }

 private:
  struct Room {
    Index unit = -1;
    bool open = false;
  };
  static std::size_t bytes(Index elements) { return static_cast<std::size_t>(elements) * sizeof(W); }
  static W* data(typename B::Buffer& buffer) { return reinterpret_cast<W*>(buffer.data()); }
  Room& at(Index unit) { return rooms_[static_cast<std::size_t>(map_.room(unit))]; }

  void reduce(Index unit, B& on) {
    Room& room = at(unit);
    if (room.unit != unit || !std::exchange(room.open, false)) return;
    if (reduction_ == Reduction::nothing || reduction_ == Reduction::afterwards) return;
    const bool every_pass = reduction_ == Reduction::every_pass;
    if ((every_pass || last_) && map_.parts(unit).total() > 0)
      sums_.start({unit, whole(unit), part(unit), every_pass && passes_ > 0, last_}, on);
  }

  UnitMap map_;
  Reduction reduction_ = Reduction::nothing;
  typename B::Buffer whole_{}, parts_{};
  std::vector<Room> rooms_;
  UnitSums<B> sums_;  // after the memory that its pending operations use
  std::exception_ptr failure_;
  Index passes_ = 0;
  bool accumulates_ = true, own_ = true, last_ = true;
};

}  // namespace parscale
