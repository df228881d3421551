/// The seam between the model and where its parameters live. The model asks a store for a unit's weights just
/// before the unit's block runs and hands a unit's gradients back just after; whether they lie in one memory
/// or are gathered from many ranks is the store's business.
#pragma once

#include <concepts>
#include <string_view>
#include <utility>

#include "../backend/backend.hpp"

namespace parscale {

/// Weights or gradients of one unit, lent by a store; `*lent` is the group of views. Given back when the
/// handle dies, which does not throw: a store reports what failed from its finish().
template <class Group, class Release>
class Lent {
 public:
  Lent(Group group, Release release) : group_(std::move(group)), release_(std::move(release)) {}
  Lent(Lent&& other) noexcept
      : group_(std::move(other.group_)),
        release_(std::move(other.release_)),
        held_(std::exchange(other.held_, false)) {}
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;
  Lent& operator=(Lent&&) = delete;
  ~Lent() {
    if (held_) release_();
  }
  const Group& operator*() const { return group_; }
  const Group* operator->() const { return &group_; }

 private:
  Group group_;
  Release release_;
  bool held_ = true;
};

/// For a store whose memory always stays: giving back is nothing.
struct NothingToRelease {
  void operator()() const noexcept {}
};

/// One parameter (or the part of it that this process updates) with everything the optimiser needs.
template <class W>
struct Owned {
  std::string_view name;
  View<W> weight;
  View<W> gradient, first, second;  ///< absent when the parameter is frozen
};

/// What the model asks of a store. `finish` ends a backward pass: gradients are complete when it returns.
template <class Store>
concept ParameterStore = requires(Store& store, Index layer) {
  *store.embedding();
  *store.layer(layer);
  *store.top();
  *store.embedding_gradients();
  *store.layer_gradients(layer);
  *store.top_gradients();
  store.finish();
};

}  // namespace parscale
