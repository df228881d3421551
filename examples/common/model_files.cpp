#include "model_files.hpp"

namespace parscale::program {
namespace {

/// The library's lists for checkpoints, Tensor being TensorSource or TensorSink.
template <template <class> class Tensor, class T>
io::TrainingTensors<Tensor<T>> training_tensors(const ModelTensors<T>& model) {
  const auto list = [](const std::vector<io::TensorAccess<T>>& tensors) {
    std::vector<Tensor<T>> out;
    for (const auto& t : tensors) {
      if constexpr (std::is_same_v<Tensor<T>, io::TensorSource<T>>)
        out.push_back({t.name, t.extent, t.copy_out, t.owned_part()});
      else
        out.push_back({t.name, t.extent, t.copy_in, t.owned_part()});
    }
    return out;
  };
  return {list(model.weights), list(model.first_moments), list(model.second_moments)};
}

}  // namespace

void save_model(AnyModel& model, const io::ModelConfig& config, const std::filesystem::path& directory,
                const io::SaveOptions& options) {
  std::visit(
      [&](const auto& t) { io::save_parameters(t.weights, config, directory, options, model.ranks().group); },
      model.tensors());
}

void save_model_into(AnyModel& model, const io::ModelConfig& config, const std::filesystem::path& directory,
                     const io::SaveOptions& options) {
  std::visit(
      [&](const auto& t) {
        io::save_parameters_into(t.weights, config, directory, options, model.ranks().group);
      },
      model.tensors());
}

std::uint64_t state_bytes(AnyModel& model) {
  return std::visit([](const auto& t) { return io::bytes_of(training_tensors<io::TensorSource>(t)); },
                    model.tensors());
}

io::SavedCheckpoint save_state(AnyModel& model, const io::CheckpointRequest& request,
                               const io::TrainerState& state) {
  const Ranks& ranks = model.ranks();
  const Division division = ranks.division();
  const io::PartOwner owner{ranks.rank(), division.owners()};
  const AnyTensors tensors = model.tensors();
  return io::save_checkpoint(request, ranks.group, [&](auto& writer) {
    std::visit(
        [&](const auto& t) {
          io::write_training_state(writer, training_tensors<io::TensorSource>(t), state, owner);
        },
        tensors);
  });
}

io::TrainerState load_state(AnyModel& model, const std::filesystem::path& checkpoint) {
  const auto state = std::visit(
      [&](const auto& t) { return io::read_training_state(checkpoint, training_tensors<io::TensorSink>(t)); },
      model.tensors());
  model.resume(state.step);
  return state;
}

}  // namespace parscale::program
