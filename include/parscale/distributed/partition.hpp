/// How a flat array is shared out: one consecutive part a rank, of any sizes, empty ones included.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "../core/tensor.hpp"

namespace parscale::distributed {

/// Cheap to copy: copies share the numbers, which never change.
class Partition {
 public:
  /// Of nothing, over nobody.
  Partition() : Partition(std::vector<Index>{}) {}

  /// Parts of these sizes, in rank order. Throws ConfigurationError when one is negative.
  explicit Partition(const std::vector<Index>& counts) : bounds_(offsets(counts)), stride_(common(counts)) {}

  /// Equal parts, each a multiple of `alignment`; the last ones are shorter or empty when that does not go
  /// up. 100 over 3 with alignment 8: 40, 40, 20.
  static Partition even(Index total, int world, Index alignment = 1) {
    if (total < 0 || world < 1 || alignment < 1)
      throw ConfigurationError({.what = "A partition needs a size, a rank and an alignment of at least 1"});
    const Index units = (total + alignment - 1) / alignment;
    const Index part = (units + world - 1) / world * alignment;
    std::vector<Index> counts;
    for (Index rank = 0; rank < world; ++rank)
      counts.push_back(std::clamp(total - rank * part, Index{0}, part));
    Partition partition(counts);
    partition.stride_ = part;
    return partition;
  }

  int world() const { return static_cast<int>(bounds_->size()) - 1; }
  Index total() const { return bounds_->back(); }
  /// Where the part of `rank` begins, and how many elements it has.
  Index first(int rank) const { return at(rank); }
  Index count(int rank) const { return at(rank + 1) - at(rank); }
  Index largest() const {
    Index n = 0;
    for (int rank = 0; rank < world(); ++rank) n = std::max(n, count(rank));
    return n;
  }

  /// Elements of a part when all are equal but for short ones at the end, as those of `even`; otherwise 0.
  Index stride() const { return stride_; }
  /// Elements of an array in which every part of an even partition is whole; otherwise total().
  Index padded() const { return std::max(total(), stride_ * world()); }

 private:
  using Offsets = std::shared_ptr<const std::vector<Index>>;

  static Offsets offsets(const std::vector<Index>& counts) {
    std::vector<Index> bounds{0};
    for (const Index count : counts) {
      if (count < 0) throw ConfigurationError({.what = "A part of a partition has a negative size"});
      bounds.push_back(bounds.back() + count);
    }
    return std::make_shared<const std::vector<Index>>(std::move(bounds));
  }
  static Index common(const std::vector<Index>& counts) {
    const bool equal =
        std::adjacent_find(counts.begin(), counts.end(), std::not_equal_to<>()) == counts.end();
    return counts.empty() || !equal ? 0 : counts.front();
  }
  Index at(int i) const { return (*bounds_)[static_cast<std::size_t>(i)]; }

  Offsets bounds_;
  Index stride_ = 0;
};

}  // namespace parscale::distributed
