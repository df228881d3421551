/// The store of many ranks: each owns a part of every unit's elements, and whole units are put together when
/// blocks need them. Alone, a rank owns everything: then this is LocalStore, in memory and in bits.
#pragma once

#include <string>

#include "gathered_weights.hpp"
#include "parameter_store.hpp"
#include "sequence_tree.hpp"
#include "shared_layout.hpp"

namespace parscale {

template <Architecture arch, class B>
class ShardedStore {
  using S = Scalar<B>;
  using W = Wide<B>;
  using Layout = SharedLayout<arch, B>;
  using Extents = typename Layout::Extents;
  using Accepts = typename Layout::Accepts;
  using Buffer = typename B::Buffer;
  static constexpr bool one_type = std::is_same_v<S, W>;

 public:
  using Options = Ranks;

  ShardedStore(const Shape& shape, B& on, const Ranks& ranks = {})
      : ranks_(ranks),
        circles_(ranks),
        division_(ranks.division()),
        extents_(ModelWeights<arch, B>::extents(shape)),
        trained_(Layout::chosen(extents_, [](std::string_view) { return false; })),
        map_(Layout::weights(extents_, division_, ranks.rank())),
        whole_(on.allocate(bytes<S>(map_.whole_size()))),
        masters_(on.allocate(bytes<W>(Layout::keeps_masters(division_) ? map_.own_size() : 0))),
        rounded_(on.allocate(bytes<S>(Layout::keeps_rounded(division_) ? map_.own_size() : 0))),
        gathered_(circles_.owners(), map_) {}

  const Ranks& ranks() const { return ranks_; }
  const Division& division() const { return division_; }
  /// Elements of all parameters, of those whose name `accepts` accepts, of those that are trained.
  Index parameters() const { return Layout::count(extents_); }
  Index elements(const Accepts& accepts) const { return Layout::count(Layout::chosen(extents_, accepts)); }
  Index trained() const { return Layout::count(trained_); }

  /// Makes room for gradients and moments of the parameters whose name `trainable` accepts. Both start at
  /// zero.
  void train(const Accepts& trainable, B& on) {
    if (division_.deterministic && !AddsWide<B>)
      throw ConfigurationError({.what = "training.deterministic needs a backend that can add"});
    trained_ = Layout::chosen(extents_, trainable);
    const UnitMap map = Layout::gradients(extents_, trained_, map_, division_, ranks_.rank());
    UnitSums<B> sums(circles_, Layout::sums(extents_, map, division_), division_, on);
    gradients_ = ReducedGradients<B>(map, reduction_of(division_), std::move(sums), on);
    for (auto* buffer : {&first_, &second_}) {
      *buffer = on.allocate(bytes<W>(map.own_size()));
      if (map.own_size() > 0) on.fill_zero({data<W>(*buffer), {map.own_size()}});
    }
  }

  auto embedding() { return lend(extents_.embedding, acquire(0)); }
  auto layer(Index i) { return lend(extents_.layers[at(i)], acquire(1 + i)); }
  auto top() { return lend(extents_.top, acquire(map_.units() - 1)); }
  auto embedding_gradients(B& on) { return lend_gradients(trained_.embedding, 0, on); }
  auto layer_gradients(Index i, B& on) { return lend_gradients(trained_.layers[at(i)], 1 + i, on); }
  auto top_gradients(B& on) { return lend_gradients(trained_.top, map_.units() - 1, on); }

  bool takes_single_sequences() const { return division_.deterministic; }
  void zero_gradients(B& on) { gradients_.zero(on); }
  StepWork begin_step(Index micro_batches, Index counted, B&) {
    gradients_.renew();
    if constexpr (AddsWide<B>) {
      if (!division_.together()) tree_.begin({micro_batches}, 0);
    }
    if (!division_.together()) return {micro_batches, counted};
    return agree(micro_batches, counted);
  }
  void begin_pass(bool own, bool last) {
    own_pass_ = own;
    last_pass_ = last;
    gradients_.begin_pass(own, last);
  }
  bool accumulates() const { return gradients_.accumulates(); }
  void finish(B& on) {
    gradients_.finish(on);
    if (!division_.deterministic) return;
    if constexpr (AddsWide<B>) {
      if (own_pass_) tree_.take(gradients_, on);
      if (last_pass_) tree_.finish(circles_.all(), gradients_, on);
    }
  }

  double total_loss(std::span<const double> own) {
    if (division_.deterministic) return sum_in_tree(all_losses(own));
    double sum = 0;
    for (const double loss : own) sum += loss;
    return division_.together() ? sum_over(*circles_.all(), sum) : sum;
  }
  double total_squares(double own) {
    return division_.shares() && !division_.deterministic ? sum_over(*circles_.owners(), own) : own;
  }

  /// Calls f(Owned) for every parameter, in the model's order. Where this rank owns nothing, parts have no
  /// elements. Every rank calls it: weights may change, so that they are gathered anew afterwards.
  template <class F>
  void each(F&& f) {
    gathered_.outdate();
    Layout::walk(extents_, trained_,
                 [&](std::string_view name, const Extent& extent, const Extent& kept, Index unit, Index place,
                     Index slot) { f(owned(name, extent, kept, unit, place, slot)); });
  }

  /// What a step begins with has been updated, after each() has shown everything: it is on its way to the
  /// other ranks while the rest is updated.
  void first_is_new() {
    gathered_.prefetch(
        0, [this](Index u) { return part(u); }, [this](Index u) { return whole(u); });
  }

  /// Calls f(name, gradient) for the gradients whose squares total_squares() completes.
  template <class F>
  void each_gradient(F&& f) {
    Layout::walk(extents_, trained_,
                 [&](std::string_view name, const Extent& extent, const Extent& kept, Index unit, Index place,
                     Index slot) {
                   const In<W> gradient =
                       division_.deterministic && kept.count() > 0
                           ? In<W>{gradients_.whole(unit) + slot, kept}
                           : In<W>(owned(name, extent, kept, unit, place, slot).gradient.flat());
                   if (gradient) f(name, gradient);
                 });
  }

  /// Copies the elements [first, first + out.size()) of a whole parameter, or of its gradient or a moment, to
  /// the host. `own` is this rank's part, which begins at `offset` of the whole. Every rank calls it.
  void gather(Part<W> own, Index offset, Index first, std::span<W> out, B& on) {
    const auto count = static_cast<Index>(out.size());
    const Stretch mine = Stretch{offset, own.count()}.meet({first, count});
    const In<W> part{own.data + (mine.first - offset), {mine.count}};
    if (!division_.shares()) return on.to_host(part, out.data());
    Buffer whole = on.allocate(bytes<W>(count));
    circles_.owners()
        ->all_gather(distributed::AllGather<W>{.part = part.data,
                                               .whole = data<W>(whole),
                                               .parts = distributed::Partition(of_owners(mine.count)),
                                               .what = "a parameter"})
        .wait();
    on.to_host(View<W>{data<W>(whole), {count}}, out.data());
  }

  static StoreBytes bytes(const Shape& shape, const Accepts& trainable, const Division& division) {
    return Layout::bytes(ModelWeights<arch, B>::extents(shape), trainable, division);
  }

 private:
  template <class T>
  static std::size_t bytes(Index elements) {
    return static_cast<std::size_t>(elements) * sizeof(T);
  }
  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }
  template <class T>
  static T* data(Buffer& buffer) {
    return reinterpret_cast<T*>(buffer.data());
  }

  S* whole(Index unit) { return data<S>(whole_) + map_.place(unit); }
  /// This rank's part of a unit as the optimiser has it, and as blocks read it.
  W* master(Index unit) {
    if constexpr (one_type)
      if (!Layout::keeps_masters(division_)) return whole(unit) + map_.own(unit).first;
    return data<W>(masters_) + map_.own_place(unit);
  }
  S* part(Index unit) {
    if (!division_.gathers_layers()) return whole(unit) + map_.own(unit).first;
    if constexpr (one_type) return master(unit);
    return data<S>(rounded_) + map_.own_place(unit);
  }

  const S* acquire(Index unit) {
    gathered_.acquire(
        unit, [this](Index u) { return part(u); }, [this](Index u) { return whole(u); });
    return whole(unit);
  }
  template <template <class> class Group>
  static auto lend(const Group<Extent>& extents, const S* base) {
    return Lent<Group<View<const S>>, NothingToRelease>(bind(extents, base), {});
  }

  struct GiveBack {
    ReducedGradients<B>* gradients;
    Index unit;
    B* on;
    void operator()() const noexcept { gradients->close(unit, *on); }
  };
  template <template <class> class Group>
  auto lend_gradients(const Group<Extent>& extents, Index unit, B& on) {
    gradients_.open(unit, on);
    return Lent<Group<View<W>>, GiveBack>(bind(extents, gradients_.whole(unit)), {&gradients_, unit, &on});
  }

  OwnedBy<B> owned(std::string_view name, const Extent& extent, const Extent& kept, Index unit, Index place,
                   Index slot) {
    const Stretch own = map_.own(unit);
    const Stretch mine = Stretch{place, extent.count()}.meet(own);
    const Index in_part = mine.count > 0 ? mine.first - own.first : 0;
    OwnedBy<B> p{.name = name,
                 .extent = extent,
                 .offset = mine.first - place,
                 .first_needed = unit == 0,
                 .weight = {master(unit) + in_part, mine.count},
                 .gradient = {},
                 .first = {},
                 .second = {}};
    if constexpr (!one_type) p.lent = {part(unit) + in_part, mine.count};
    if (kept.count() == 0) return p;
    const UnitMap& map = gradients_.map();
    const Index in_trained = mine.count > 0 ? slot + p.offset - map.own(unit).first : 0;
    const Index in_moments = map.own_place(unit) + in_trained;
    p.gradient = {gradients_.part(unit) + in_trained, mine.count};
    p.first = {data<W>(first_) + in_moments, mine.count};
    p.second = {data<W>(second_) + in_moments, mine.count};
    return p;
  }

  StepWork agree(Index micro_batches, Index counted) {
    const double mine[] = {static_cast<double>(micro_batches), static_cast<double>(counted)};
    const auto all = distributed::gather_values(*circles_.all(), std::span(mine));
    StepWork work;
    shares_.clear();
    for (std::size_t i = 0; i < all.size(); i += 2) {
      shares_.push_back(static_cast<Index>(all[i]));
      work.passes = std::max(work.passes, shares_.back());
      work.counted += static_cast<Index>(all[i + 1]);
    }
    if constexpr (AddsWide<B>) tree_.begin(shares_, ranks_.rank());
    return work;
  }
  static double sum_over(distributed::Group& ranks, double own) {
    distributed::sum_values(ranks, std::span(&own, 1));
    return own;
  }
  std::vector<Index> of_owners(Index own) {
    const double mine = static_cast<double>(own);
    const auto all = distributed::gather_values(*circles_.owners(), std::span(&mine, 1));
    return {all.begin(), all.end()};
  }
  /// Of all sequences of the global batch, in their order.
  std::vector<double> all_losses(std::span<const double> own) {
    if (!division_.together()) return {own.begin(), own.end()};
    std::vector<double> mine(own.begin(), own.end()), all;
    mine.resize(at(*std::max_element(shares_.begin(), shares_.end())));
    const auto padded = distributed::gather_values(*circles_.all(), std::span<const double>(mine));
    for (std::size_t rank = 0; rank < shares_.size(); ++rank)
      all.insert(all.end(), padded.begin() + static_cast<std::ptrdiff_t>(rank * mine.size()),
                 padded.begin() + static_cast<std::ptrdiff_t>(rank * mine.size()) + shares_[rank]);
    return all;
  }

  Ranks ranks_;
  Circles circles_;
  Division division_;
  Extents extents_, trained_;
  UnitMap map_;
  Buffer whole_, masters_, rounded_, first_{}, second_{};
  GatheredWeights<S> gathered_;  // after the memory that its pending operations use, as the next
  ReducedGradients<B> gradients_;
  SequenceTree<B> tree_;
  std::vector<Index> shares_;
  bool own_pass_ = true, last_pass_ = true;
};

}  // namespace parscale
