/// The seam between the model and where its parameters live. The model asks a store for a unit's weights just
/// before the unit's block runs and hands a unit's gradients back just after; whether they lie in one memory
/// or are gathered from many ranks is the store's business.
#pragma once

#include <concepts>
#include <span>
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

/// What a process owns of a tensor: elements in their order, without the tensor's shape, so that no block can
/// take them for the tensor.
template <class T>
struct Part {
  T* data = nullptr;  ///< null: the tensor has no such part in any process
  Index size = 0;

  Index count() const { return size; }
  explicit operator bool() const { return data != nullptr && size > 0; }
  /// As a row: for copies, and for operations that treat every element by itself.
  View<T> flat() const { return {data, {size}}; }
};

/// One parameter, or the part of it that this process owns, with everything the optimiser needs.
///   W  the type of master weights, gradients and moments; S the type that blocks compute with
template <class W, class S = W>
struct Owned {
  std::string_view name;
  Extent extent;              ///< of the whole parameter
  Index offset = 0;           ///< where in the whole, seen flat, the parts begin
  bool first_needed = false;  ///< a step begins with it: see ShardedStore::first_is_new()
  Part<W> weight;
  Part<W> gradient, first, second;  ///< absent when the parameter is frozen
  Part<S> lent = {};                ///< the weight as blocks read it; absent when they read `weight` itself
};
template <class B>
using OwnedBy = Owned<Wide<B>, Scalar<B>>;

/// Sets the owned elements [first, first + values.size()) of a parameter: the master weight, and what is
/// lent.
template <class B>
void set_weight(const OwnedBy<B>& p, Index first, std::span<const Wide<B>> values, B& on) {
  const Extent extent{static_cast<Index>(values.size())};
  if (values.empty()) return;
  const Out<Wide<B>> weight{p.weight.data + first, extent};
  on.from_host(values.data(), weight);
  if (p.lent) on.round(weight, Out<Scalar<B>>{p.lent.data + first, extent});
}

/// What one step is, over all processes that share the parameters.
struct StepWork {
  Index passes = 0;   ///< micro-batches of the process that has most: that many passes all take part in
  Index counted = 0;  ///< positions that count in the loss
};

/// What the model and its trainer ask of a store. A step is begin_step, and for each pass begin_pass(whether
/// this process has a micro-batch for it, whether it is the last one), units and gradients in the order of
/// forward and backward, finish. Gradients are complete after the last finish. `accumulates` says whether a
/// pass adds its gradients to those that are lent, else it writes over what lies there: nobody zeroes memory
/// for the first pass of a step. `total_...` add up over all processes.
template <class Store, class B>
concept ParameterStore = requires(Store& store, B& on, Index layer, std::span<const double> losses) {
  *store.embedding();
  *store.layer(layer);
  *store.top();
  *store.embedding_gradients(on);
  *store.layer_gradients(layer, on);
  *store.top_gradients(on);
  { store.begin_step(Index{}, Index{}, on) } -> std::same_as<StepWork>;
  store.begin_pass(true, true);
  { store.accumulates() } -> std::same_as<bool>;
  store.finish(on);
  { store.total_loss(losses) } -> std::same_as<double>;
  { store.total_squares(0.0) } -> std::same_as<double>;
};

}  // namespace parscale
