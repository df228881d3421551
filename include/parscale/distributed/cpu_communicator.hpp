/// The operations of a Communicator on CPU memory, over any transport that can do one thing: an exchange, in
/// which each rank sends each other rank a piece. Sums are taken in rank order by whoever owns the result, so
/// every transport gives the same bits.
#pragma once

#include <algorithm>
#include <concepts>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "communicator.hpp"
#include "transport.hpp"
#include "work_queue.hpp"

namespace parscale::distributed {

template <Transport T>
class CpuCommunicator {
 public:
  using Pending = PendingWork;

  explicit CpuCommunicator(T transport) : transport_(std::move(transport)) {}

  int rank() const { return transport_.rank(); }
  int size() const { return transport_.size(); }
  Activity& activity() { return *transport_.watch().activity; }
  const Watch& watch() const { return transport_.watch(); }

  template <Element E>
  Pending all_gather(AllGather<E> a) {
    return start("all_gather", a.what, [this, a] { run(a); });
  }
  template <Number E>
  Pending reduce_scatter(ReduceScatter<E> a) {
    return start("reduce_scatter", a.what, [this, a] { run(a); });
  }
  template <Number E>
  Pending all_reduce(AllReduce<E> a) {
    return start("all_reduce", a.what, [this, a] { run(a); });
  }
  template <Element E>
  Pending broadcast(Broadcast<E> a) {
    return start("broadcast", a.what, [this, a] { run(a); });
  }
  template <Element E>
  Pending all_to_all(AllToAll<E> a) {
    return start("all_to_all", a.what, [this, a] { run(a); });
  }

  std::vector<std::byte> share(std::span<const std::byte> mine) {
    const auto each = static_cast<Index>(mine.size());
    std::vector<std::byte> all(mine.size() * static_cast<std::size_t>(size()));
    const std::vector<Index> counts(static_cast<std::size_t>(size()), each);
    start("share", {}, [&] {
      run(AllGather<std::byte>{.part = mine.data(), .whole = all.data(), .parts = Partition(counts)});
    }).wait();
    return all;
  }

  std::unique_ptr<CpuCommunicator> split(int colour) {
    const double mine = colour;
    const std::vector<double> colours = gather_values(*this, {&mine, 1});
    std::vector<int> members;
    for (int r = 0; r < size(); ++r)
      if (colours[static_cast<std::size_t>(r)] == mine) members.push_back(r);
    std::unique_ptr<CpuCommunicator> part;
    start("split", {}, [&] {
      part = std::make_unique<CpuCommunicator>(transport_.subgroup(members));
    }).wait();
    return part;
  }

 private:
  template <class E>
  using Sum = std::conditional_t<std::same_as<E, BFloat16>, float, E>;

  /// Reductions go in pieces of this many elements from each rank: they bound the memory for what arrives.
  static constexpr Index piece = Index{1} << 17;
  /// Shorter arrays are reduced in one exchange.
  static constexpr Index few = 4096;

  Pending start(std::string operation, const std::string& what, std::function<void()> work) {
    if (!what.empty()) operation += " of " + what;
    return queue_.start([this, operation = std::move(operation), work = std::move(work)] {
      operation_ = operation;
      activity().begin(operation);
      work();
      activity().end();
    });
  }

  template <class E>
  void run(const AllGather<E>& a) {
    Exchange pieces(size());
    for (int r = 0; r < size(); ++r) {
      pieces.send(r, a.part, a.parts.count(rank()));
      pieces.receive(r, a.whole + a.parts.first(r), a.parts.count(r));
    }
    exchange(pieces);
  }

  template <class E>
  void run(const ReduceScatter<E>& a) {
    const auto share_of = [&](int r, Index done) {
      return std::clamp(a.parts.count(r) - done, Index{0}, piece);
    };
    for (Index done = 0; done < a.parts.largest(); done += piece) {
      const Index mine = share_of(rank(), done);
      E* const arrived = scratch<E>(mine * size());
      Exchange pieces(size());
      for (int r = 0; r < size(); ++r) {
        pieces.send(r, a.whole + a.parts.first(r) + done, share_of(r, done));
        pieces.receive(r, arrived + r * mine, mine);
      }
      exchange(pieces);
      if (mine > 0) sum_ranks(arrived, mine, a.part + done);
    }
  }

  template <class E>
  void run(const AllReduce<E>& a) {
    if (a.count <= few) {
      E* const arrived = scratch<E>(a.count * size());
      const std::vector<Index> counts(static_cast<std::size_t>(size()), a.count);
      run(AllGather<E>{.part = a.values, .whole = arrived, .parts = Partition(counts)});
      return sum_ranks(arrived, a.count, a.values);
    }
    const Partition parts = Partition::even(a.count, size());
    E* const part = a.values + parts.first(rank());
    run(ReduceScatter<E>{.whole = a.values, .part = part, .parts = parts});
    run(AllGather<E>{.part = part, .whole = a.values, .parts = parts});
  }

  template <class E>
  void run(const Broadcast<E>& a) {
    Exchange pieces(size());
    if (rank() == a.root)
      for (int r = 0; r < size(); ++r) pieces.send(r, a.values, a.count);
    pieces.receive(a.root, a.values, a.count);
    exchange(pieces);
  }

  template <class E>
  void run(const AllToAll<E>& a) {
    Exchange pieces(size());
    for (int r = 0; r < size(); ++r) {
      pieces.send(r, a.send + a.to.first(r), a.to.count(r));
      pieces.receive(r, a.receive + a.from.first(r), a.from.count(r));
    }
    exchange(pieces);
  }

  /// The piece for ourselves needs no transport.
  void exchange(Exchange& pieces) {
    pieces.copy_own(rank());
    if (size() > 1) transport_.exchange(pieces, operation_);
  }

  /// to[i] = arrived[0][i] + arrived[1][i] + ..., in that order.
  template <class E>
  void sum_ranks(const E* arrived, Index count, E* to) {
    sums_.resize(static_cast<std::size_t>(count) * sizeof(Sum<E>));
    auto* const sums = reinterpret_cast<Sum<E>*>(sums_.data());
    for (Index i = 0; i < count; ++i) sums[i] = static_cast<Sum<E>>(arrived[i]);
    for (int r = 1; r < size(); ++r) {
      const E* const from = arrived + r * count;
      for (Index i = 0; i < count; ++i) sums[i] += static_cast<Sum<E>>(from[i]);
    }
    for (Index i = 0; i < count; ++i) to[i] = static_cast<E>(sums[i]);
  }

  template <class E>
  E* scratch(Index count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(E);
    if (arrived_.size() < bytes) arrived_.resize(bytes);
    return reinterpret_cast<E*>(arrived_.data());
  }

  T transport_;
  std::string operation_;  // these three belong to the queue's thread
  std::vector<std::byte> arrived_, sums_;
  WorkQueue queue_;  // the last member: its thread uses the others
};

}  // namespace parscale::distributed
