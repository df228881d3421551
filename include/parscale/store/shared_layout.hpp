/// The maps of a model's units over ranks, and the bytes that they take: one arithmetic for the store that
/// allocates and for the plan that foretells.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "../block/model_weights.hpp"
#include "ranks.hpp"
#include "reduced_gradients.hpp"
#include "sequence_tree.hpp"

namespace parscale {

/// Bytes of a rank's store, by use.
struct StoreBytes {
  std::size_t weights = 0;   ///< what is owned, or whole on every rank
  std::size_t gathered = 0;  ///< whole units around their use
  std::size_t gradients = 0;
  std::size_t moments = 0;
  std::size_t sums = 0;  ///< of single sequences, in the deterministic mode
};

template <Architecture arch, class B>
struct SharedLayout {
  using S = Scalar<B>;
  using W = Wide<B>;
  using Extents = typename ModelWeights<arch, B>::Extents;
  using Accepts = std::function<bool(std::string_view)>;
  static constexpr bool one_type = std::is_same_v<S, W>;
  /// Parts begin at multiples of this, so that accelerators move 16 bytes at a time.
  static constexpr Index alignment = 8;

  static Index count(const Extents& extents) {
    Index n = 0;
    Extents::each([&](std::string_view, const Extent& extent) { n += extent.count(); }, extents);
    return n;
  }
  /// The same with only those parameters present whose name is accepted.
  static Extents chosen(Extents extents, const Accepts& accepts) {
    Extents::each(
        [&](std::string_view name, Extent& extent) {
          if (!accepts(name)) extent = {};
        },
        extents);
    return extents;
  }

  /// Calls f(name, extent, trained extent, unit, place in the unit, place in the unit's trained elements) for
  /// every parameter that is there.
  template <class F>
  static void walk(const Extents& extents, const Extents& trained, F&& f) {
    const std::vector<Index> sizes = unit_sizes(extents);
    Index unit = 0, place = 0, slot = 0;
    Extents::each(
        [&](std::string_view name, const Extent& extent, const Extent& kept) {
          if (extent.count() == 0) return;
          for (; place == sizes[static_cast<std::size_t>(unit)]; ++unit) place = slot = 0;
          f(name, extent, kept, unit, place, slot);
          place += extent.count();
          slot += kept.count();
        },
        extents, trained);
  }

  static UnitMap weights(const Extents& extents, const Division& d, int rank) {
    std::vector<distributed::Partition> parts;
    for (const Index size : unit_sizes(extents))
      parts.push_back(d.shares() ? distributed::Partition::even(size, d.owners(), alignment)
                                 : distributed::Partition::even(size, 1));
    return {std::move(parts), rank % d.owners(),
            d.gathers_layers() ? UnitMap::Places::layers_in_turn : UnitMap::Places::each_its_own};
  }

  /// Trained elements belong to whoever owns the weights.
  static UnitMap gradients(const Extents& extents, const Extents& trained, const UnitMap& weights,
                           const Division& d, int rank) {
    std::vector<std::vector<Stretch>> kept(static_cast<std::size_t>(weights.units()));
    walk(extents, trained,
         [&](std::string_view, const Extent&, const Extent& e, Index unit, Index place, Index) {
           if (e.count() > 0) kept[static_cast<std::size_t>(unit)].push_back({place, e.count()});
         });
    std::vector<distributed::Partition> parts;
    for (std::size_t unit = 0; unit < kept.size(); ++unit)
      parts.push_back(shared_like(weights.parts(static_cast<Index>(unit)), kept[unit]));
    return {std::move(parts), rank % d.owners(),
            reduction_of(d) == Reduction::every_pass ? turns(extents) : UnitMap::Places::each_its_own};
  }
  /// Where sums of these gradients run: rounded ones take turns in memory of their own.
  static UnitMap sums(const Extents& extents, const UnitMap& gradients, const Division& d) {
    return UnitSums<B>::rounds(d) ? gradients.placed(turns(extents)) : gradients;
  }
  /// Master weights apart from what blocks read: in another type, or of parts only.
  static bool keeps_masters(const Division& d) { return !one_type || d.gathers_layers(); }
  /// What is gathered apart from both.
  static bool keeps_rounded(const Division& d) { return !one_type && d.gathers_layers(); }

  /// What the rank takes that owns most; without training before `trainable` is given.
  static StoreBytes bytes(const Extents& extents, const Accepts& trainable, const Division& d) {
    const UnitMap map = weights(extents, d, 0);
    const UnitMap slopes = largest_gradients(extents, chosen(extents, trainable), map, d);
    const auto size = [](Index n, std::size_t each) { return static_cast<std::size_t>(n) * each; };
    const std::size_t whole = size(map.whole_size(), sizeof(S));
    StoreBytes total;
    total.weights = (keeps_masters(d) ? size(map.own_size(), sizeof(W)) : 0) +
                    (keeps_rounded(d) ? size(map.own_size(), sizeof(S)) : 0);
    (d.gathers_layers() ? total.gathered : total.weights) += whole;
    total.gradients = size(slopes.whole_size(), sizeof(W)) +
                      (reduction_of(d) == Reduction::every_pass ? size(slopes.own_size(), sizeof(W)) : 0) +
                      UnitSums<B>::bytes(sums(extents, slopes, d), d);
    total.moments = 2 * size(slopes.own_size(), sizeof(W));
    if (d.deterministic) total.sums = SequenceTree<B>::bytes(slopes, d.sequences, d.world);
    return total;
  }

 private:
  /// Of the rank that owns most of what is trained.
  static UnitMap largest_gradients(const Extents& extents, const Extents& trained, const UnitMap& weights,
                                   const Division& d) {
    UnitMap most = gradients(extents, trained, weights, d, 0);
    for (int rank = 1; rank < d.owners(); ++rank)
      if (UnitMap its = most.seen_by(rank); its.own_size() > most.own_size()) most = std::move(its);
    return most;
  }
  static std::vector<Index> unit_sizes(const Extents& extents) {
    std::vector<Index> sizes{parscale::count(extents.embedding)};
    for (const auto& layer : extents.layers) sizes.push_back(parscale::count(layer));
    sizes.push_back(parscale::count(extents.top));
    return sizes;
  }
  /// A tied head's gradients are the embedding's, which are then in use from the head's to the end; another
  /// head's are complete before the embedding's begin.
  static UnitMap::Places turns(const Extents& extents) {
    const bool tied = extents.top.lm_head.count() == 0;
    return tied ? UnitMap::Places::layers_in_turn : UnitMap::Places::ends_in_turn;
  }
};

}  // namespace parscale
