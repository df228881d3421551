#include "placement.hpp"

#ifdef PARSCALE_WITH_CUDA
#include <parscale/backend/cuda/device.hpp>
#endif

namespace parscale::program {
namespace {

Compute compute_of(Precision precision) {
  switch (precision) {
    case Precision::float64:
      return Compute::float64;
    case Precision::bfloat16:
      return Compute::bfloat16;
    case Precision::tf32:
      return Compute::tf32;
    default:
      return Compute::float32;
  }
}

/// What options say of "training.device", in the words of a program that has --device.
std::string as_flags(std::string text) {
  constexpr std::string_view section = "training.";
  for (std::size_t at = text.find(section); at != text.npos; at = text.find(section, at))
    text.replace(at, section.size(), "--");
  return text;
}

}  // namespace

Machine this_machine() {
#ifdef PARSCALE_WITH_CUDA
  return {.cuda = cuda::device_count() > 0,
          .plans_cuda = true,
          .why_no_cuda =
              "there is no GPU that this process can use (nvidia-smi shows what the driver sees, "
              "CUDA_VISIBLE_DEVICES what is hidden)"};
#else
  return {};
#endif
}

Placement placement_of(const TrainingOptions& options) {
  Placement at{
      .compute = compute_of(options.dtype), .threads = static_cast<int>(options.threads), .many_steps = true};
  if (options.device == Device::cuda) at.gpu = 0;
  return at;
}

void PlacementCommand::add_to(CLI::App& app) {
  app.add_option("--device", device, "where to compute; auto: a GPU if there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--dtype", dtype, "computing type; auto: bfloat16 on a GPU, else float32")
      ->check(CLI::IsMember({"auto", "float32", "float64", "bfloat16", "tf32"}))
      ->capture_default_str();
  app.add_option("--threads", threads, "on the CPU; 0: one a core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

Placement PlacementCommand::placement() const try {
  const Options options = parse_options(
      {},
      {"training.device=" + device, "training.dtype=" + dtype, "training.threads=" + std::to_string(threads)},
      this_machine());
  Placement at = placement_of(options.training);
  at.many_steps = false;  // prompts have many lengths
  return at;
} catch (const ConfigurationError& error) {
  const Explanation& e = error.explanation();
  throw ConfigurationError({.what = as_flags(e.what),
                            .where = as_flags(e.where),
                            .why = as_flags(e.why),
                            .remedy = as_flags(e.remedy)});
}

}  // namespace parscale::program
