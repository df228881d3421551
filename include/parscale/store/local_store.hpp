/// The store of one process: all parameters in one memory, lent as plain views. Where blocks compute in a
/// narrower type than the optimiser, master weights and their rounded copies stand side by side.
#pragma once

#include <functional>
#include <numeric>
#include <span>
#include <string>

#include "../block/model_weights.hpp"
#include "parameter_store.hpp"

namespace parscale {

template <Architecture arch, class B>
class LocalStore {
  using S = Scalar<B>;
  using W = Wide<B>;
  static constexpr bool one_type = std::is_same_v<S, W>;
  using Model = ModelWeights<arch, B>;
  using Extents = typename Model::Extents;

 public:
  struct Options {};

  LocalStore(const Shape& shape, B& on, Options = {})
      : extents_(Model::extents(shape)), weights_(on.allocate(bytes<W>(count(extents_)))) {
    if constexpr (!one_type) lent_ = on.allocate(bytes<S>(count(extents_)));
  }

  /// Elements of all parameters.
  Index parameters() const { return count(extents_); }
  /// Elements of the parameters whose name `accepts` accepts.
  Index elements(const std::function<bool(std::string_view)>& accepts) const {
    Index n = 0;
    Extents::each(
        [&](std::string_view name, const Extent& extent) { n += accepts(name) ? extent.count() : 0; },
        extents_);
    return n;
  }
  /// Elements of the parameters that are trained; none before `train`.
  Index trained() const { return count(trained_); }

  /// Makes room for gradients and moments of the parameters whose name `trainable` accepts. Both start at
  /// zero.
  void train(const std::function<bool(std::string_view)>& trainable, B& on) {
    trained_ = extents_;
    Extents::each(
        [&](std::string_view name, Extent& extent) {
          if (!trainable(name)) extent = {};
        },
        trained_);
    const std::size_t size = bytes<W>(count(trained_));
    for (auto* buffer : {&gradients_, &first_, &second_}) *buffer = on.allocate(size);
    for (auto* buffer : {&gradients_, &first_, &second_}) on.fill_zero({data<W>(*buffer), {count(trained_)}});
  }

  auto embedding() const { return lend(extents_.embedding, weights(0)); }
  auto layer(Index i) const { return lend(extents_.layers[at(i)], weights(1 + i)); }
  auto top() const { return lend(extents_.top, weights(1 + layers())); }
  auto embedding_gradients(B&) { return lend(trained_.embedding, gradients(0)); }
  auto layer_gradients(Index i, B&) { return lend(trained_.layers[at(i)], gradients(1 + i)); }
  auto top_gradients(B&) { return lend(trained_.top, gradients(1 + layers())); }

  bool takes_single_sequences() const { return false; }
  void zero_gradients(B& on) {
    on.fill_zero({data<W>(gradients_), {count(trained_)}});
    accumulates_ = true;
  }
  StepWork begin_step(Index micro_batches, Index counted, B&) {
    accumulates_ = false;
    return {micro_batches, counted};
  }
  void begin_pass(bool, bool) {}
  bool accumulates() const { return accumulates_; }
  void finish(B&) { accumulates_ = true; }
  double total_loss(std::span<const double> own) const {
    return std::accumulate(own.begin(), own.end(), 0.0);
  }
  double total_squares(double own) const { return own; }

  /// Calls f(Owned) for every parameter, in the model's order.
  template <class F>
  void each(F&& f) {
    Index weight = 0, slot = 0;
    const Extents& trained = trained_.layers.empty() ? none() : trained_;
    Extents::each(
        [&](std::string_view name, const Extent& extent, const Extent& kept) {
          if (extent.count() == 0) return;
          const auto part = [&](typename B::Buffer& buffer) -> Part<W> {
            return kept.count() == 0 ? Part<W>{} : Part<W>{data<W>(buffer) + slot, kept.count()};
          };
          OwnedBy<B> owned{.name = name,
                           .extent = extent,
                           .weight = {data<W>(weights_) + weight, extent.count()},
                           .gradient = part(gradients_),
                           .first = part(first_),
                           .second = part(second_)};
          if constexpr (!one_type) owned.lent = {data<S>(lent_) + weight, extent.count()};
          f(owned);
          weight += extent.count();
          slot += kept.count();
        },
        extents_, trained);
  }

  /// Calls f(name, gradient) for the gradients whose squares total_squares() completes.
  template <class F>
  void each_gradient(F&& f) {
    each([&](const OwnedBy<B>& p) {
      if (p.gradient) f(p.name, p.gradient.flat());
    });
  }

  /// Copies elements [first, first + out.size()) of a parameter, its gradient or a moment to the host.
  void gather(Part<W> own, Index, Index first, std::span<W> out, B& on) const {
    on.to_host(In<W>{own.data + first, {static_cast<Index>(out.size())}}, out.data());
  }

 private:
  template <class T>
  static std::size_t bytes(Index elements) {
    return static_cast<std::size_t>(elements) * sizeof(T);
  }
  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }
  template <class T>
  static T* data(typename B::Buffer& buffer) {
    return reinterpret_cast<T*>(buffer.data());
  }
  template <class T>
  static const T* data(const typename B::Buffer& buffer) {
    return reinterpret_cast<const T*>(buffer.data());
  }
  static Index count(const Extents& extents) {
    Index n = 0;
    Extents::each([&](std::string_view, const Extent& extent) { n += extent.count(); }, extents);
    return n;
  }
  Index layers() const { return static_cast<Index>(extents_.layers.size()); }

  /// Extents of a model that trains nothing, for `each` before `train`.
  const Extents& none() {
    if (nothing_.layers.empty()) nothing_.layers.resize(extents_.layers.size());
    return nothing_;
  }

  /// Elements before a unit: 0 the embedding, 1 + i layer i, 1 + L the top.
  static Index before(const Extents& extents, Index unit) {
    Index n = unit > 0 ? parscale::count(extents.embedding) : 0;
    for (Index i = 0; i + 1 < unit; ++i) n += parscale::count(extents.layers[at(i)]);
    return n;
  }
  const S* weights(Index unit) const { return data<S>(one_type ? weights_ : lent_) + before(extents_, unit); }
  W* gradients(Index unit) { return data<W>(gradients_) + before(trained_, unit); }

  template <template <class> class Group, class T>
  static auto lend(const Group<Extent>& extents, T* base) {
    return Lent<Group<View<T>>, NothingToRelease>(bind(extents, base), {});
  }

  Extents extents_, trained_{}, nothing_{};
  typename B::Buffer weights_, lent_{}, gradients_{}, first_{}, second_{};
  bool accumulates_ = true;  ///< false in the first pass of a step
};

}  // namespace parscale
