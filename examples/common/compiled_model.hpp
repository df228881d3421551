/// AnyModel for one architecture on one backend: forwards to the model and its trainer. Instantiated once per
/// architecture and backend, in translation units of their own (architecture_on_*.cpp.in).
#pragma once

#include <parscale/causal_lm.hpp>
#include <parscale/store/sharded_store.hpp>

#include "any_model.hpp"

namespace parscale::program {

/// What a backend tells of its device; a backend's own header adds its overload.
template <class B>
DeviceReport device_report(const B& on, Compute compute);

template <class Model>
typename Model::Room room_of(const TrainerOptions& options) {
  return {options.sequences, options.tokens, options.keep, false};
}

inline Division division_of(const PlanRequest& request) {
  Division division = request.division;
  division.sequences = request.trainer.global_sequences;
  return division;
}

/// `on` is the backend, or what knows its scratch memory.
template <class Model, class On>
MemoryPlan plan_training(const Shape& shape, const PlanRequest& request, const On& on) {
  MemoryPlan plan = memory_plan<Model>(shape, room_of<Model>(request.trainer), request.trainer.trainable,
                                       division_of(request), on);
  if (request.evaluation_rows > 0)
    plan.lines.push_back(
        {"evaluation", Model::Memory::bytes(
                           shape, {request.evaluation_rows, request.trainer.tokens, Keep::nothing, false})});
  return plan;
}

template <Architecture arch, class B>
class CompiledModel final : public AnyModel {
  using Model = CausalLM<arch, B, ShardedStore>;

 public:
  CompiledModel(const Shape& shape, Compute compute, B on, const Ranks& ranks)
      : shape_((check(arch, shape), shape)), compute_(compute), ranks_(ranks), planned_on_(std::move(on)) {}

  const Shape& shape() const override { return shape_; }
  Compute compute() const override { return compute_; }
  DeviceReport device() const override { return device_report(backend(), compute_); }
  const Ranks& ranks() const override { return ranks_; }

  MemoryPlan plan(const TrainerOptions& options, Index evaluation_rows) const override {
    return plan_training<Model>(shape_, {ranks_.division(), compute_, options, evaluation_rows}, backend());
  }
  int smallest_world(const TrainerOptions& options, std::size_t bytes) const override {
    return parscale::smallest_world<Model>(shape_, room_of<Model>(options), options.trainable,
                                           division_of({ranks_.division(), compute_, options}), backend(),
                                           bytes);
  }
  std::size_t weight_bytes() const override {
    const auto nothing = [](std::string_view) { return false; };
    const StoreBytes store = Model::Store::bytes(shape_, nothing, ranks_.division());
    return store.weights + store.gathered;
  }

  void allocate() override {
    model_.emplace(shape_, Uninitialised{}, std::move(*planned_on_), ranks_);
    planned_on_.reset();
  }
  Index parameters() const override { return model_->parameters(); }
  std::vector<double> logits(const Batch& batch) override {
    const auto values = model_->logits(batch);
    return {values.begin(), values.end()};
  }
  double loss(const Batch& batch) override { return model_->loss(batch); }
  std::vector<std::vector<Token>> generate(const std::vector<std::vector<Token>>& prompts,
                                           const GenerateOptions& options) override {
    return model_->generate(prompts, options);
  }
  void initialise(std::uint64_t seed) override { model_->initialise(seed); }
  AnyTensors tensors() override {
    using Owned = OwnedBy<B>;
    return ModelTensors<Wide<B>>{io::tensors_of(*model_, &Owned::weight),
                                 io::tensors_of(*model_, &Owned::first),
                                 io::tensors_of(*model_, &Owned::second)};
  }

  void train(const TrainerOptions& options) override { trainer_.emplace(*model_, options); }
  Index trained() const override { return model_->store().trained(); }
  StepResult step(std::span<const Batch> micro_batches, double learning_rate) override {
    return trainer_->step(micro_batches, learning_rate);
  }
  Index steps() const override { return trainer_->steps(); }
  void resume(Index steps) override { trainer_->resume(steps); }

 private:
  const B& backend() const { return model_ ? model_->backend() : *planned_on_; }

  Shape shape_;
  Compute compute_;
  Ranks ranks_;
  std::optional<B> planned_on_;  // until the model has it
  std::optional<Model> model_;
  std::optional<Trainer<Model>> trainer_;
};

}  // namespace parscale::program
