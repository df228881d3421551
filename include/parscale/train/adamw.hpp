/// AdamW (arXiv 1711.05101) with the defaults of Hugging Face's Trainer, over what a store owns.
#pragma once

#include <vector>

#include "../core/initialise.hpp"
#include "../store/parameter_store.hpp"

namespace parscale {

struct AdamW {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0.0;  ///< decoupled; never on biases and norms

  /// One update of every trained parameter. `step` is 1 for the first; gradients are multiplied by `scale`.
  template <class Store, class B>
  void update(Store& store, double learning_rate, Index step, double scale, B& on) const {
    std::vector<op::AdamW<Scalar<B>, Wide<B>>> updates;
    std::size_t first = 0;
    store.each([&](const OwnedBy<B>& p) {
      if (p.gradient)
        updates.push_back({.weight = p.weight.flat(),
                           .gradient = p.gradient.flat(),
                           .first = p.first.flat(),
                           .second = p.second.flat(),
                           .lent = p.lent.flat(),
                           .learning_rate = learning_rate,
                           .beta1 = beta1,
                           .beta2 = beta2,
                           .epsilon = epsilon,
                           .weight_decay = decays(p.name) ? weight_decay : 0.0,
                           .gradient_scale = scale,
                           .step = step});
      if (p.first_needed) first = updates.size();
    });
    const std::span<const op::AdamW<Scalar<B>, Wide<B>>> all(updates);
    if constexpr (requires { store.first_is_new(); }) {
      if (first > 0) on.adamw(all.first(first));
      store.first_is_new();
    } else {
      first = 0;
    }
    if (first < all.size()) on.adamw(all.subspan(first));
  }
};

/// The factor that brings gradients of this norm to at most `max_norm` (PyTorch's clip_grad_norm_). 0: no
/// clipping.
inline double clip_factor(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace parscale
