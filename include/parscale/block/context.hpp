/// What a block is given besides its weights.
#pragma once

#include "../backend/backend.hpp"
#include "../core/memory.hpp"
#include "../core/parameters.hpp"

namespace parscale {

/// The backend, the model's sizes, where the batch's tokens stand, and memory for what lives within one call.
/// Every block is a struct of static functions over this: forward, and its backward beside it; `Kept` is what
/// the backward needs from the forward, `Scratch` what either needs for itself. Both are taken from an arena
/// by the same function that plans them.
template <class B>
struct Context {
  B& on;
  const Shape& shape;
  Layout layout;
  Arena& scratch;
  bool accumulate = true;  ///< gradients of weights are added to what is there; else they replace it
};

/// A place that several steps share in turn, or one of its own when nothing is shared.
template <class S>
View<S> take_or(View<S> shared, Arena& arena, const Extent& extent) {
  return shared.count() > 0 ? View<S>{shared.data, extent} : arena.take<S>(extent);
}

}  // namespace parscale
