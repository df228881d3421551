/// Sums over the sequences of a global batch in an order that knows nothing of ranks: the binary tree whose
/// inner nodes are the aligned runs of 2, 4, 8, ... sequences, and whose root adds the largest runs from the
/// right. Each rank adds up the runs that lie in its share, owners of parts add the rest: the same bits for
/// any number of ranks.
#pragma once

#include <utility>
#include <vector>

#include "../core/stretch.hpp"
#include "../distributed/group.hpp"
#include "reduced_gradients.hpp"

namespace parscale {

/// A backend that can add on its memory; the CPU's can.
template <class B>
concept AddsWide = requires(B& on, In<Wide<B>> x, Out<Wide<B>> sum) {
  on.add_wide(x, sum);
};

/// A run of sequences whose sum is known.
template <class Sum>
struct Run {
  Index first, count;
  Sum sum;
};

/// Appends the run that follows, and adds pairs of equal runs as long as they make an aligned one.
template <class Sum, class Add>
void append_run(std::vector<Run<Sum>>& runs, Run<Sum> next, const Add& add) {
  runs.push_back(std::move(next));
  while (runs.size() > 1) {
    auto &left = runs.end()[-2], &right = runs.end()[-1];
    if (left.count != right.count || left.first % (2 * left.count) != 0) return;
    add(left.sum, right.sum);
    left.count *= 2;
    runs.pop_back();
  }
}
/// The sum of all runs, in the first one.
template <class Sum, class Add>
void add_runs(std::vector<Run<Sum>>& runs, const Add& add) {
  for (; runs.size() > 1; runs.pop_back()) add(runs.end()[-2].sum, runs.end()[-1].sum);
}

/// The sum of numbers, one a sequence, in the tree's order.
inline double sum_in_tree(std::span<const double> values) {
  const auto add = [](double& left, double right) { left += right; };
  std::vector<Run<double>> runs;
  for (std::size_t i = 0; i < values.size(); ++i)
    append_run(runs, {static_cast<Index>(i), 1, values[i]}, add);
  add_runs(runs, add);
  return runs.empty() ? 0.0 : runs.front().sum;
}

/// Gradients of single sequences on their way to the sum. Holds a few copies of all gradients: the logarithm
/// of a rank's share.
template <class B>
class SequenceTree {
  using W = Wide<B>;
  using Gradients = ReducedGradients<B>;

 public:
  /// What the rank takes that takes most, when `sequences` are shared out evenly.
  static std::size_t bytes(const UnitMap& gradients, Index sequences, int world) {
    std::vector<Index> shares;
    for (int rank = 0; rank < world; ++rank) shares.push_back(share_of(sequences, rank, world).count);
    Index most = 0, first = 0;
    for (const Index share : shares)
      most = std::max(most, most_runs(std::exchange(first, first + share), share));
    return static_cast<std::size_t>(most * gradients.whole_size() + arriving(gradients, shares)) * sizeof(W);
  }

  /// `shares`: how many sequences each rank has, in rank order.
  void begin(const std::vector<Index>& shares, int rank) {
    shares_ = shares;
    rank_ = rank;
    next_ = 0;
    for (int r = 0; r < rank; ++r) next_ += shares[static_cast<std::size_t>(r)];
  }

  /// The gradients of the rank's next sequence.
  void take(Gradients& gradients, B& on) {
    const View<W> all = gradients.all();
    if (all.count() == 0) return;
    append_run(runs_, {next_++, 1, copy(all, on)}, [&](Buffer& left, Buffer& right) {
      on.add_wide(view(right, all.count()), view(left, all.count()));
      free_.push_back(std::move(right));
    });
    gradients.renew();
  }

  /// The sum over all sequences, on every rank.
  void finish(distributed::Group* group, Gradients& gradients, B& on) {
    const View<W> all = gradients.all();
    if (all.count() > 0 && group == nullptr) {
      add_runs(runs_, [&](Buffer& left, Buffer& right) {
        on.add_wide(view(right, all.count()), view(left, all.count()));
      });
      on.copy_wide(view(runs_.front().sum, all.count()), all);
    }
    if (group != nullptr) {
      if (const Index room = arriving(gradients.map(), shares_); room > arriving_) {
        arrived_ = on.allocate(static_cast<std::size_t>(room) * sizeof(W));
        arriving_ = room;
      }
      for (Index unit = 0; unit < gradients.map().units(); ++unit) exchange(*group, gradients, unit, on);
    }
    for (auto& run : runs_) free_.push_back(std::move(run.sum));
    runs_.clear();
  }

 private:
  using Buffer = typename B::Buffer;

  static View<W> view(Buffer& buffer, Index count) { return {reinterpret_cast<W*>(buffer.data()), {count}}; }
  Buffer copy(View<W> all, B& on) {
    if (free_.empty()) free_.push_back(on.allocate(static_cast<std::size_t>(all.count()) * sizeof(W)));
    Buffer buffer = std::move(free_.back());
    free_.pop_back();
    on.copy_wide(all, view(buffer, all.count()));
    return buffer;
  }

  /// How many sums a rank holds at most on its way through sequences [first, first + count).
  static Index most_runs(Index first, Index count) {
    std::size_t most = 0;
    std::vector<Run<int>> runs;
    for (Index i = 0; i < count; ++i) {
      most = std::max(most, runs.size() + 1);
      append_run(runs, {first + i, 1, 0}, [](int, int) {});
    }
    return static_cast<Index>(most);
  }
  /// Elements that arrive at a rank at once: all ranks' runs of its part of the largest unit.
  static Index arriving(const UnitMap& gradients, const std::vector<Index>& shares) {
    if (shares.size() < 2) return 0;
    std::size_t runs = 0;
    for (const auto& of_rank : runs_of_ranks(shares)) runs += of_rank.size();
    Index largest = 0;
    for (Index unit = 0; unit < gradients.units(); ++unit)
      largest = std::max(largest, gradients.parts(unit).total());
    return static_cast<Index>(runs) *
           distributed::Partition::even(largest, static_cast<int>(shares.size())).largest();
  }

  /// The runs that each rank holds after its last sequence.
  static std::vector<std::vector<Run<W*>>> runs_of_ranks(const std::vector<Index>& shares) {
    std::vector<std::vector<Run<W*>>> all;
    Index first = 0;
    for (const Index share : shares) {
      auto& runs = all.emplace_back();
      for (Index i = 0; i < share; ++i) append_run(runs, {first++, 1, nullptr}, [](W*&, W*&) {});
    }
    return all;
  }

  /// Each rank gets all runs of its part of the unit, adds them up, and hands the sum to the others.
  void exchange(distributed::Group& group, Gradients& gradients, Index unit, B& on) {
    const Index count = gradients.map().parts(unit).total();
    if (count == 0) return;
    const auto parts = distributed::Partition::even(count, group.size());
    const Index own = parts.count(rank_);
    auto ranks = runs_of_ranks(shares_);
    std::size_t most = 0;
    for (const auto& runs : ranks) most = std::max(most, runs.size());
    W* next = reinterpret_cast<W*>(arrived_.data());
    for (std::size_t k = 0; k < most; ++k) {
      receive(group, gradients, unit, k, parts, ranks, next);
      for (auto& runs : ranks)
        if (k < runs.size()) runs[k].sum = std::exchange(next, next + own);
    }
    W* const to = gradients.whole(unit) + parts.first(rank_);
    if (own > 0) on.copy_wide({sum(ranks, own, on), {own}}, {to, {own}});
    group
        .all_gather(distributed::AllGather<W>{
            .part = to, .whole = gradients.whole(unit), .parts = parts, .what = "summed gradients"})
        .wait();
  }

  /// The k-th run of every rank that has one.
  void receive(distributed::Group& group, Gradients& gradients, Index unit, std::size_t k,
               const distributed::Partition& parts, const std::vector<std::vector<Run<W*>>>& ranks, W* to) {
    std::vector<Index> outgoing, incoming;
    for (int r = 0; r < group.size(); ++r) {
      outgoing.push_back(k < runs_.size() ? parts.count(r) : 0);
      incoming.push_back(k < ranks[static_cast<std::size_t>(r)].size() ? parts.count(rank_) : 0);
    }
    const Index place = gradients.whole(unit) - gradients.all().data;
    const W* const from =
        k < runs_.size() ? reinterpret_cast<const W*>(runs_[k].sum.data()) + place : nullptr;
    group
        .all_to_all(distributed::AllToAll<W>{.send = from,
                                             .to = distributed::Partition(outgoing),
                                             .receive = to,
                                             .from = distributed::Partition(incoming),
                                             .what = "sums of sequences"})
        .wait();
  }

  static W* sum(const std::vector<std::vector<Run<W*>>>& ranks, Index own, B& on) {
    const auto add = [&](W* left, W* right) { on.add_wide({right, {own}}, {left, {own}}); };
    std::vector<Run<W*>> all;
    for (const auto& runs : ranks)
      for (const auto& run : runs) append_run(all, run, add);
    add_runs(all, add);
    return all.front().sum;
  }

  std::vector<Index> shares_;
  int rank_ = 0;
  Index next_ = 0;
  std::vector<Run<Buffer>> runs_;
  std::vector<Buffer> free_;
  Buffer arrived_{};
  Index arriving_ = 0;
};

}  // namespace parscale
