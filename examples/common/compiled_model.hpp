/// AnyModel for one architecture on one backend: forwards to the model and its trainer. Instantiated once per
/// architecture and backend, in translation units of their own (architecture_on_*.cpp.in).
#pragma once

#include <parscale/causal_lm.hpp>

#include "any_model.hpp"

namespace parscale::program {

/// What a backend tells of its device; a backend's own header adds its overload.
template <class B>
DeviceReport device_report(const B& on, Compute compute);

template <Architecture arch, class B>
class CompiledModel final : public AnyModel {
  using Model = CausalLM<arch, B>;

 public:
  CompiledModel(const Shape& shape, Compute compute, B on)
      : model_(shape, Uninitialised{}, std::move(on)), compute_(compute) {}

  const Shape& shape() const override { return model_.shape(); }
  Compute compute() const override { return compute_; }
  DeviceReport device() const override { return device_report(model_.backend(), compute_); }
  Index parameters() const override { return model_.parameters(); }

  std::vector<double> logits(const Batch& batch) override {
    const auto values = model_.logits(batch);
    return {values.begin(), values.end()};
  }
  double loss(const Batch& batch) override { return model_.loss(batch); }
  std::vector<std::vector<Token>> generate(const std::vector<std::vector<Token>>& prompts,
                                           const GenerateOptions& options) override {
    return model_.generate(prompts, options);
  }
  void initialise(std::uint64_t seed) override { model_.initialise(seed); }
  AnyTensors tensors() override {
    using Owned = OwnedBy<B>;
    return ModelTensors<Wide<B>>{io::tensors_of(model_, &Owned::weight),
                                 io::tensors_of(model_, &Owned::first),
                                 io::tensors_of(model_, &Owned::second)};
  }

  MemoryPlan plan(const TrainerOptions& options, Index evaluation_rows) const override {
    MemoryPlan plan =
        memory_plan<Model>(shape(), {options.sequences, options.tokens, options.keep, false}, parameters(),
                           model_.store().elements(options.trainable), model_.backend());
    if (evaluation_rows > 0)
      plan.lines.push_back({"evaluation", Model::Memory::bytes(shape(), {evaluation_rows, options.tokens,
                                                                         Keep::nothing, false})});
    return plan;
  }
  void train(const TrainerOptions& options) override { trainer_.emplace(model_, options); }
  Index trained() const override { return model_.store().trained(); }
  StepResult step(std::span<const Batch> micro_batches, double learning_rate) override {
    return trainer_->step(micro_batches, learning_rate);
  }
  Index steps() const override { return trainer_->steps(); }
  void resume(Index steps) override { trainer_->resume(steps); }

 private:
  Model model_;
  Compute compute_;
  std::optional<Trainer<Model>> trainer_;
};

}  // namespace parscale::program
