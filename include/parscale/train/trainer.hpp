/// One optimiser step: the micro-batches of a global batch forward and backward, the norm, the update.
#pragma once

#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "../causal_lm.hpp"
#include "adamw.hpp"
#include "trainable.hpp"

namespace parscale {

struct TrainerOptions {
  Index sequences = 1;  ///< rows of a micro-batch
  Index tokens = 1;     ///< tokens of a row
  Keep keep = Keep::everything;
  AdamW adamw = {};
  double max_grad_norm = 1.0;  ///< gradients are clipped to this global norm; 0: never
  Trainable trainable = {};
  Index global_sequences = 0;  ///< rows of a step, over all processes; only plans ask
};

struct StepResult {
  double loss;       ///< mean cross-entropy in nats over the counted positions of the global batch
  double grad_norm;  ///< before clipping
};

template <class Model>
class Trainer {
  using B = typename Model::BackendType;

 public:
  Trainer(Model& model, const TrainerOptions& options)
      : model_(model),
        options_(options),
        memory_(model.shape(), {options.sequences, options.tokens, options.keep, false}, model.backend()) {
    model.store().train(options_.trainable, model.backend());
    if (model.store().trained() == 0)
      throw ConfigurationError({.what = "training.trainable matches no parameter",
                                .remedy = "name parts of parameter names, for example \"prefix,aggregate\""});
    if (model.store().takes_single_sequences() && options.sequences != 1)
      throw ConfigurationError({.what = "training.deterministic needs micro-batches of one sequence"});
  }

  /// Updates done so far.
  Index steps() const { return steps_; }
  /// Continues a run: the store's weights and moments have been restored to what they were after `steps`
  /// updates.
  void resume(Index steps) { steps_ = steps; }

  /// One update from the mean loss over all micro-batches, those of other processes included; all of them
  /// call this, with any number of their own. A loss or gradient that is not finite throws NumericError
  /// before anything is changed, in every process.
  StepResult step(std::span<const Batch> micro_batches, double learning_rate) {
    const double loss = loss_and_gradients(micro_batches);
    const double norm = gradient_norm();
    options_.adamw.update(model_.store(), learning_rate, steps_ + 1,
                          clip_factor(norm, options_.max_grad_norm), model_.backend());
    ++steps_;
    return {loss, norm};
  }

 private:
  double loss_and_gradients(std::span<const Batch> micro_batches) {
    auto& store = model_.store();
    const auto own = static_cast<Index>(micro_batches.size());
    Index counted = 0;
    for (const Batch& batch : micro_batches) counted += batch.counted();
    const StepWork work = store.begin_step(own, counted, model_.backend());
    if (work.counted == 0) throw ConfigurationError({.what = "A training step has no target that counts"});
    std::vector<double> losses;
    for (Index pass = 0; pass < work.passes; ++pass) {
      store.begin_pass(pass < own, pass + 1 == work.passes);
      if (pass < own)
        losses.push_back(model_.loss_and_gradients(micro_batches[static_cast<std::size_t>(pass)],
                                                   1.0 / static_cast<double>(work.counted), memory_));
      else
        model_.accompany();
    }
    const double loss = store.total_loss(losses);
    if (!std::isfinite(loss)) fail("The loss is not a finite number", "loss", loss);
    return loss;
  }

  double gradient_norm() {
    std::vector<In<Wide<B>>> gradients;
    std::vector<std::string> names;
    model_.store().each_gradient([&](std::string_view name, In<Wide<B>> gradient) {
      gradients.push_back(gradient);
      names.emplace_back(name);
    });
    std::vector<double> squares(gradients.size());
    model_.backend().sums_of_squares(gradients, squares);
    const double sum = model_.store().total_squares(std::accumulate(squares.begin(), squares.end(), 0.0));
    if (!std::isfinite(sum)) fail_gradient(names, squares, sum);
    return std::sqrt(sum);
  }

  [[noreturn]] void fail_gradient(const std::vector<std::string>& names, const std::vector<double>& squares,
                                  double sum) const {
    for (std::size_t i = 0; i < squares.size(); ++i)
      if (!std::isfinite(squares[i]))
        fail("A gradient is not finite", "the gradient of " + names[i], squares[i]);
    fail("A gradient is not finite", "a gradient that another process owns", sum);
  }

  [[noreturn]] void fail(const char* what, const std::string& tensor, double value) const {
    throw NumericError({.what = what,
                        .where = "step " + std::to_string(steps_ + 1) + ", " + tensor,
                        .why = "it is " + std::to_string(value) + "; the weights were not updated",
                        .remedy =
                            "lower training.learning_rate, lengthen training.warmup_steps, or resume from an "
                            "earlier checkpoint with another training.seed"});
  }

  Model& model_;
  TrainerOptions options_;
  typename Model::Memory memory_;
  Index steps_ = 0;
};

}  // namespace parscale
