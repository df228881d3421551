/// What a pass keeps: memory for one batch's way through the model, planned before anything is allocated.
/// This is the seam that decides what is kept for the backward and what is computed again.
#pragma once

#include <vector>

#include "../batch.hpp"
#include "model_weights.hpp"

namespace parscale {

enum class Keep {
  everything,    ///< all that the backward reads
  products,      ///< what products and attention gave; the backward normalises each block's input again
  layer_inputs,  ///< the stream between layers; the backward runs each layer's forward again
  nothing,       ///< no backward: two streams in turn, one layer's memory for all
};

template <Architecture arch, class B>
class Activations {
  using S = Scalar<B>;
  using W = Wide<B>;
  using Model = ModelWeights<arch, B>;
  using Layer = typename Model::Layer;

 public:
  /// Room for batches of `sequences` rows of `tokens`, of which `own_ids` says that each replica has its own.
  struct Room {
    Index sequences = 1, tokens = 1;
    Keep keep = Keep::everything;
    bool own_ids = false;
    bool operator==(const Room&) const = default;
  };

  Activations(const Shape& shape, const Room& room, B& on)
      : room_(room), buffer_(on.allocate(bytes(shape, room))), arena_(buffer_.data(), bytes(shape, room)) {
    take(arena_, shape, room, *this);
  }

  /// Bytes that such an object allocates.
  static std::size_t bytes(const Shape& shape, const Room& room) {
    Arena plan;
    Activations counted;
    take(plan, shape, room, counted);
    return plan.peak();
  }

  const Room& room() const { return room_; }

  /// Copies a batch to the backend. `past` [B]: tokens that each sequence has in a cache already; empty:
  /// none.
  void load(const Batch& batch, const std::vector<Index>& past, B& on) {
    check_room(batch);
    const auto copy = [&](const auto& host, auto& view) {
      auto filled = view;
      filled.extent = {static_cast<Index>(host.size())};
      if (!host.empty()) on.from_host(host.data(), filled);
    };
    copy(batch.ids, ids);
    copy(batch.targets, targets);
    copy(batch.starts, starts_);
    copy(past, past_);
    layout.past = past.empty() ? In<Index>{} : past_.readable();
    layout.starts = batch.starts.empty() ? In<std::int32_t>{} : starts_.readable();
  }

  Layout layout{};
  View<Token> ids, targets;                  // [B,S] or [P,B,S]; [B,S]
  std::vector<View<S>> streams;              // L+1 of [M,H]: each layer's input, and the last one's output
  std::vector<typename Layer::Kept> layers;  // L; in one place unless everything is kept
  View<W> norm_rstd;                         // [M]
  typename Model::Aggregate::Kept aggregation;
  View<S> d_stream, d_merged;  // [M,H] [N,H], for a backward only
  View<S> d_embedded;          // d_stream when it has come down to the embedding: [M,H], or [N,H] summed
  View<S> again;               // [M,H] output of a layer that is run again
  View<S> normed;              // [M,H] the one place of all normalised inputs, where they are not kept

  Arena& scratch() { return arena_; }

 private:
  Activations() = default;

  void check_room(const Batch& batch) const {
    const bool same_ids = static_cast<Index>(batch.ids.size()) == ids.count();
    if (batch.sequences == room_.sequences && batch.tokens == room_.tokens && same_ids) return;
    throw ConfigurationError({.what = "A batch does not fit the memory that was planned for it",
                              .why = concat({batch.sequences, " sequences of ", batch.tokens, " tokens, ",
                                             batch.ids.size(), " ids; planned: ", room_.sequences, " of ",
                                             room_.tokens, ", ", ids.count(), " ids"})});
  }

  static void take(Arena& arena, const Shape& shape, const Room& room, Activations& a) {
    a.layout = {.sequences = room.sequences, .tokens = room.tokens, .replicas = arch.replicas};
    const Index n = a.layout.positions(), m = a.layout.rows();
    const Extent stream{m, shape.hidden};
    a.ids = arena.take<Token>({room.own_ids ? m : n});
    a.targets = arena.take<Token>({n});
    a.starts_ = arena.take<std::int32_t>({n});
    a.past_ = arena.take<Index>({room.sequences});
    take_streams(arena, shape, room, stream, a);
    a.norm_rstd = Model::Norm::take_kept(arena, a.layout);
    a.aggregation = Model::Aggregate::take_kept(arena, shape, a.layout);
    if (room.keep != Keep::nothing) {
      a.d_stream = arena.take<S>(stream);
      a.d_embedded = a.d_stream.first(starts_alike(shape, room) ? n : m);
      a.d_merged = arena.take<S>({n, shape.hidden});
    }
    if (room.keep == Keep::layer_inputs) a.again = arena.take<S>(stream);
    if (room.keep == Keep::products) a.normed = arena.take<S>(stream);
    take_layers(arena, shape, room, a);
    plan_top(arena, shape, a.layout);
  }

  /// Whether the first layer's attention reads the same from all replicas: they start as copies. Used where
  /// there is a backward, not for the few rows of a decoding step.
  static bool starts_alike(const Shape& shape, const Room& room) {
    const bool crosses_first = arch.cross_attention == CrossAttention::sublayer && crosses<arch>(shape, 0);
    return arch.replicas > 1 && room.keep != Keep::nothing && !room.own_ids && !shape.replica_embedding &&
           !crosses_first;
  }

  static void take_streams(Arena& arena, const Shape& shape, const Room& room, const Extent& stream,
                           Activations& a) {
    for (Index i = 0; i <= shape.layers; ++i) {
      const bool reuse = room.keep == Keep::nothing && i >= 2;
      a.streams.push_back(reuse ? a.streams[static_cast<std::size_t>(i - 2)] : arena.take<S>(stream));
    }
  }

  /// Each layer's own memory, or every layer's at one place; and room for the deepest scratch after them.
  static void take_layers(Arena& arena, const Shape& shape, const Room& room, Activations& a) {
    const auto take_layer = [&](Arena& from, Index i) {
      const bool same_input = i == 0 && starts_alike(shape, room);
      return Layer::take_kept(from, shape, a.layout, crosses<arch>(shape, i), same_input, a.normed);
    };
    if (room.keep == Keep::everything || room.keep == Keep::products) {
      for (Index i = 0; i < shape.layers; ++i) a.layers.push_back(take_layer(arena, i));
      for (Index i = 0; i < shape.layers; ++i)
        Layer::plan_scratch(arena, shape, a.layout, crosses<arch>(shape, i));
      return;
    }
    const auto largest = [&] {
      Arena counting;
      for (Index i = 0; i < shape.layers; ++i) {
        Arena::Frame same_place(counting);
        take_layer(counting, i);
      }
      return counting.peak();
    }();
    View<std::byte> place = arena.take<std::byte>({static_cast<Index>(largest)});
    for (Index i = 0; i < shape.layers; ++i) {
      Arena layer(place.data, largest);
      a.layers.push_back(take_layer(layer, i));
      Layer::plan_scratch(arena, shape, a.layout, crosses<arch>(shape, i));
    }
  }

  /// Scratch of the top's backward: the gradient of the aggregated streams, and the aggregation's own.
  static void plan_top(Arena& arena, const Shape& shape, const Layout& layout) {
    Arena::Frame frame(arena);
    arena.take<S>({layout.rows(), shape.hidden});
    Model::Aggregate::take_scratch(arena, shape, layout);
  }

  Room room_{};
  typename B::Buffer buffer_{};
  Arena arena_{};
  View<std::int32_t> starts_;
  View<Index> past_;
};

}  // namespace parscale
