/// AnyModel for one architecture: forwards to the model and its trainer. Instantiated once per architecture
/// and precision, each in a translation unit of its own (architecture.cpp.in).
#pragma once

#include <parscale/backend/cpu/cpu.hpp>
#include <parscale/causal_lm.hpp>

#include "any_model.hpp"

// The kernels are compiled once for all architectures, in cpu_kernels.cpp.
extern template class parscale::Cpu<float>;
extern template class parscale::Cpu<double>;

namespace parscale::program {

template <Architecture arch, class T>
class CompiledModel final : public AnyModel {
  using Model = CausalLM<arch, Cpu<T>>;

 public:
  CompiledModel(const Shape& shape, int threads)
      : model_(shape, Uninitialised{}, Cpu<T>(CpuOptions{.threads = threads})) {}

  const Shape& shape() const override { return model_.shape(); }
  Compute compute() const override { return std::is_same_v<T, float> ? Compute::float32 : Compute::float64; }
  int threads() const override { return model_.backend().threads(); }
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
    return ModelTensors<T>{io::tensors_of(model_, &Owned<T>::weight),
                           io::tensors_of(model_, &Owned<T>::first),
                           io::tensors_of(model_, &Owned<T>::second)};
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
  std::optional<Trainer<Model>> trainer_;
};

template <Architecture arch>
std::unique_ptr<AnyModel> open_compiled(const Shape& shape, Compute compute, int threads) {
  if (compute == Compute::float64) return std::make_unique<CompiledModel<arch, double>>(shape, threads);
  return std::make_unique<CompiledModel<arch, float>>(shape, threads);
}

}  // namespace parscale::program
