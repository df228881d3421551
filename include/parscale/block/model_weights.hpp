/// All weights of a model, unit by unit in the order of a forward pass: the embedding, the layers, the top.
/// One visitor over them, with the names that checkpoints use, drives init, load, save, count and update.
#pragma once

#include <vector>

#include "aggregation.hpp"
#include "decoder_layer.hpp"
#include "embedding.hpp"

namespace parscale {

template <Architecture arch, class B>
struct ModelWeights {
  using Bottom = Embedding<arch, B>;
  using Layer = DecoderLayer<arch, B>;
  using Norm = RmsNorm<B>;
  using Aggregate = Aggregation<arch, B>;

  /// What follows the layers. A tied head has no weight of its own: it is the embedding.
  template <class Tensor>
  struct Top {
    typename Norm::template Weights<Tensor> norm;
    typename Aggregate::template Weights<Tensor> aggregate_layer;
    Tensor lm_head;  // [V,H]
    static void each(auto&& f, auto&... w) {
      Norm::template Weights<Tensor>::each(inside("model.norm", f), w.norm...);
      f("lm_head.weight", w.lm_head...);
      // Last, because it ends with the only tensor of odd size: the others stay aligned for wide loads.
      Aggregate::template Weights<Tensor>::each(inside("model.aggregate_layer", f), w.aggregate_layer...);
    }
  };

  struct Extents {
    typename Bottom::template Weights<Extent> embedding;
    std::vector<typename Layer::template Weights<Extent>> layers;
    Top<Extent> top;

    /// Calls f(name, extent, ...) for every tensor of the model, in order; absent ones have no elements.
    static void each(auto&& f, auto& first, auto&... more) {
      Bottom::template Weights<Extent>::each(f, first.embedding, more.embedding...);
      for (std::size_t i = 0; i < first.layers.size(); ++i)
        Layer::template Weights<Extent>::each(inside("model.layers." + std::to_string(i), f), first.layers[i],
                                              more.layers[i]...);
      Top<Extent>::each(f, first.top, more.top...);
    }
  };

  static Extents extents(const Shape& shape) {
    Extents all{.embedding = Bottom::weights(shape), .layers = {}, .top = {}};
    for (Index i = 0; i < shape.layers; ++i)
      all.layers.push_back(Layer::weights(shape, crosses<arch>(shape, i)));
    all.top.norm = Norm::weights(shape);
    all.top.aggregate_layer = Aggregate::weights(shape);
    if (!shape.tied) all.top.lm_head = {shape.vocabulary, shape.hidden};
    return all;
  }
};

}  // namespace parscale
