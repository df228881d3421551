// From a config to a model: finds its architecture in the compiled set.
#include <algorithm>
#include <set>

#include "compiled_set.hpp"
#include "model_files.hpp"

namespace parscale::program {
namespace {

std::string listed(int CompiledArchitecture::*member) {
  std::set<int> values;
  for (const auto& entry : compiled_set) values.insert(entry.*member);
  std::string text;
  for (int value : values) text += (text.empty() ? "" : ", ") + std::to_string(value);
  return text;
}

[[noreturn]] void fail_outside(const char* what, int value, int CompiledArchitecture::*member,
                               const char* option) {
  std::string widened = listed(member);
  widened.erase(std::remove(widened.begin(), widened.end(), ' '), widened.end());
  std::replace(widened.begin(), widened.end(), ',', ';');
  throw ConfigurationError(
      {.what = std::string("These programs were not built for this ") + what,
       .why = "it is " + std::to_string(value) + ", the compiled set has " + listed(member),
       .remedy = "configure with -D" + std::string(option) + "=\"" + widened + ";" + std::to_string(value) +
                 "\" and build again"});
}

/// The entry of the compiled set for an architecture.
const CompiledArchitecture& compiled(const Architecture& wanted) {
  const auto has = [](int CompiledArchitecture::*member, int value) {
    return std::any_of(compiled_set.begin(), compiled_set.end(),
                       [&](const auto& e) { return e.*member == value; });
  };
  if (!has(&CompiledArchitecture::head_dim, wanted.head_dim))
    fail_outside("head size", wanted.head_dim, &CompiledArchitecture::head_dim, "PARSCALE_HEAD_DIMS");
  if (!has(&CompiledArchitecture::replicas, wanted.replicas))
    fail_outside("number of replicas", wanted.replicas, &CompiledArchitecture::replicas, "PARSCALE_REPLICAS");
  return *std::find_if(compiled_set.begin(), compiled_set.end(), [&](const CompiledArchitecture& e) {
    return e.head_dim == wanted.head_dim && e.replicas == wanted.replicas &&
           e.cross_attention == wanted.cross_attention;
  });
}

void check_room(const AnyModel& model) {
  const DeviceReport device = model.device();
  if (device.memory == 0 || model.weight_bytes() <= device.memory - device.in_use) return;
  throw ConfigurationError(
      {.what = "The model does not fit the GPU",
       .where = device.name,
       .why = "its weights take " + bytes_text(model.weight_bytes()) + ", " +
              bytes_text(device.memory - device.in_use) + " are free",
       .remedy =
           "end other programs on this GPU, choose another one by CUDA_VISIBLE_DEVICES, or use the CPU"});
}

}  // namespace

std::unique_ptr<AnyModel> plan_model(const io::ModelConfig& config, const Placement& placement) {
  const CompiledArchitecture& entry = compiled(canonical(config.architecture));
  return (placement.gpu ? entry.on_gpu : entry.on_cpu)(config.shape, placement);
}

void fill_model(AnyModel& model, const WeightSource& source, LoadReport& report) {
  model.allocate();
  if (!source.checkpoint) return model.initialise(source.seed);
  report.directory = *source.checkpoint;
  const io::TensorFiles files(*source.checkpoint);
  std::visit(
      [&](const auto& t) { io::fill_parameters(t.weights, model.shape(), files, source.seed, report); },
      model.tensors());
}

std::unique_ptr<AnyModel> open_model(const io::ModelConfig& config, const WeightSource& source,
                                     const Placement& placement, LoadReport& report) {
  auto model = plan_model(config, placement);
  check_room(*model);
  fill_model(*model, source, report);
  return model;
}

MemoryPlan plan_model(const io::ModelConfig& config, const PlanRequest& request, bool on_gpu) {
  const CompiledArchitecture& entry = compiled(canonical(config.architecture));
  return (on_gpu ? entry.planned_on_gpu : entry.planned_on_cpu)(config.shape, request);
}

ModelDirectory open_model_directory(const std::string& model) {
  ModelDirectory out{.path = io::resolve_model(model), .json = {}, .config = {}};
  out.json = io::read_json(out.path / "config.json");
  out.config = io::load_model_config(out.path);
  return out;
}

std::vector<std::filesystem::path> tokenizer_files(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> files;
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "vocab.json", "merges.txt", "generation_config.json", "chat_template.jinja"})
    if (std::filesystem::exists(directory / name)) files.push_back(directory / name);
  return files;
}

}  // namespace parscale::program
