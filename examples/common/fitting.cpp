#include "fitting.hpp"

namespace parscale::program {
namespace {

/// A model's plans for variants of one run.
class Plans {
 public:
  Plans(const AnyModel& model, const FitRequest& request) : model_(model), request_(request) {}

  std::size_t total(const TrainerOptions& trainer) const {
    return model_.plan(trainer, request_.evaluation_rows).total();
  }

  /// The options that make the plan smaller, with what it would be.
  std::string advice(const TrainerOptions& trainer, std::size_t room) const {
    std::string text;
    const auto offer = [&](const std::string& option, std::size_t bytes) {
      if (bytes < total(trainer))
        text += (text.empty() ? "" : ", or ") + option + ": " + bytes_text(bytes) +
                (bytes <= room ? "" : " (not enough)");
    };
    TrainerOptions other = trainer;
    other.keep = Keep::layer_inputs;
    offer("training.recompute=layer", total(other));
    other.sequences = 1;
    if (trainer.sequences > 1) offer("with training.per_device_train_batch_size=1 besides", total(other));
    other.trainable = Trainable("prefix,aggregate");
    offer("all that and training.trainable=prefix,aggregate", total(other));
    if (const int world = model_.smallest_world(trainer, room); world > model_.ranks().division().world)
      text += (text.empty() ? "" : ", or ") + std::to_string(world) + " GPUs that share the model";
    return text.empty() ? "use the CPU, or a smaller model" : text;
  }

 private:
  const AnyModel& model_;
  const FitRequest& request_;
};

}  // namespace

Keep fitting(const AnyModel& model, const DeviceReport& device, const FitRequest& request) {
  const std::size_t room = device.memory - device.in_use;
  const Plans plans(model, request);
  TrainerOptions trainer = request.trainer;
  if (request.choose)
    for (Keep keep : {Keep::everything, Keep::products, Keep::layer_inputs}) {
      trainer.keep = keep;
      if (request.everywhere(plans.total(trainer) <= room)) break;
    }
  if (plans.total(trainer) <= room) return trainer.keep;
  throw ConfigurationError(
      {.what = "The run does not fit the GPU",
       .where = device.name,
       .why = bytes_text(plans.total(trainer)) + " are planned, " + bytes_text(room) + " are free",
       .remedy = plans.advice(trainer, room)});
}

}  // namespace parscale::program
