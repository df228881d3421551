/// AnyModel for one architecture: forwards to the model and its trainer. Instantiated once per architecture
/// and precision, each in a translation unit of its own (architecture.cpp.in).
#pragma once

#include <parscale/model.hpp>

#include "any_model.hpp"

// The kernels are compiled once for all architectures, in cpu_kernels.cpp.
extern template class parscale::Cpu<float>;
extern template class parscale::Cpu<double>;

namespace parscale::program {

template <Architecture arch, class T>
class CompiledModel final : public AnyModel {
  using Model = CausalLM<arch, Cpu<T>>;

 public:
  CompiledModel(const io::ModelConfig& config, const WeightSource& source, int threads, LoadReport& report)
      : model_(source.checkpoint ? io::load_model<Model>(config, io::TensorFiles(*source.checkpoint),
                                                         source.seed, backend(threads), report)
                                 : Model(config.shape, source.seed, backend(threads))) {}

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
  void save(const io::ModelConfig& config, const std::filesystem::path& directory,
            const io::SaveOptions& options) override {
    io::save_model(model_, config, directory, options);
  }

  void save_into(const io::ModelConfig& config, const std::filesystem::path& directory,
                 const io::SaveOptions& options) override {
    io::save_model_into(model_, config, directory, options);
  }

  MemoryPlan plan(const TrainerOptions& options) const override {
    return memory_plan<Model>(shape(), {options.sequences, options.tokens, options.keep, false}, parameters(),
                              model_.store().elements(options.trainable), model_.backend());
  }
  void train(const TrainerOptions& options) override { trainer_.emplace(model_, options); }
  Index trained() const override { return model_.store().trained(); }
  StepResult step(std::span<const Batch> micro_batches, double learning_rate) override {
    return trainer_->step(micro_batches, learning_rate);
  }
  Index steps() const override { return trainer_->steps(); }
  void resume(Index steps) override { trainer_->resume(steps); }

  std::uint64_t state_bytes() override { return io::bytes_of(sources()); }
  void save_state(io::CheckpointWriter& checkpoint, const io::TrainerState& state) override {
    io::write_training_state(checkpoint, sources(), state);
  }
  io::TrainerState load_state(const std::filesystem::path& checkpoint) override {
    const io::TrainerState state = io::read_training_state(checkpoint, sinks());
    resume(state.step);
    return state;
  }

 private:
  static Cpu<T> backend(int threads) { return Cpu<T>(CpuOptions{.threads = threads}); }

  /// Weights, and the moments of those that are trained, each made into a Tensor by make(name, extent, view).
  template <class Tensor, class Make>
  io::TrainingTensors<Tensor> tensors(Make make) {
    io::TrainingTensors<Tensor> all;
    model_.store().each([&](const Owned<T>& p) {
      const auto& extent = p.weight.extent;
      const std::vector<Index> dims(extent.dims.begin(), extent.dims.begin() + extent.rank);
      const std::string name(p.name);
      all.weights.push_back(make(name, dims, p.weight));
      if (!p.gradient) return;
      all.exp_avg.push_back(make(name, dims, p.first));
      all.exp_avg_sq.push_back(make(name, dims, p.second));
    });
    return all;
  }
  static View<T> stretch(View<T> view, Index first, std::size_t count) {
    return {view.data + first, {static_cast<Index>(count)}};
  }
  io::TrainingTensors<io::TensorSource<T>> sources() {
    return tensors<io::TensorSource<T>>(
        [this](const std::string& name, const std::vector<Index>& dims, View<T> view) {
          return io::TensorSource<T>{name, dims, [this, view](Index first, std::span<T> out) {
                                       model_.backend().to_host(stretch(view, first, out.size()), out.data());
                                     }};
        });
  }
  io::TrainingTensors<io::TensorSink<T>> sinks() {
    return tensors<io::TensorSink<T>>(
        [this](const std::string& name, const std::vector<Index>& dims, View<T> view) {
          return io::TensorSink<T>{name, dims, [this, view](Index first, std::span<const T> in) {
                                     model_.backend().from_host(in.data(), stretch(view, first, in.size()));
                                   }};
        });
  }

  Model model_;
  std::optional<Trainer<Model>> trainer_;
};

template <Architecture arch>
std::unique_ptr<AnyModel> open_compiled(const io::ModelConfig& config, const WeightSource& source,
                                        Compute compute, int threads, LoadReport& report) {
  if (compute == Compute::float64)
    return std::make_unique<CompiledModel<arch, double>>(config, source, threads, report);
  return std::make_unique<CompiledModel<arch, float>>(config, source, threads, report);
}

}  // namespace parscale::program
