// parscale-convert: Qwen2 to ParScale, ParScale of one replica to Qwen2, another dtype, another shard size.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "common/console.hpp"
#include "common/load_report.hpp"
#include "common/model_files.hpp"
#include "common/options.hpp"
#include "common/options_model.hpp"
#include "common/progress.hpp"

namespace parscale::program {
namespace {

struct ConvertCommand {
  std::string model, out, dtype, shard_size = "5GB";
  std::uint64_t seed = 42;
  std::vector<std::string> options;
  bool overwrite = false;
};

ConvertCommand parse(const std::vector<std::string>& words) {
  ConvertCommand c;
  CLI::App app("Converts a Qwen2 or ParScale model.", "parscale-convert");
  app.add_option("model", c.model, "Hugging Face directory, or a hub name in the local cache")->required();
  app.add_option("out", c.out, "directory to write")->required();
  app.add_option("options", c.options, "parscale.KEY=VALUE, as for parscale-train: parscale.parscale_n=4");
  app.add_option("--dtype", c.dtype, "of the written weights; as in the checkpoint when not given")
      ->check(CLI::IsMember({"float32", "float16", "bfloat16", "float64"}));
  app.add_option("--max-shard-size", c.shard_size, "largest file, as 5GB or 500MB")->capture_default_str();
  app.add_option("--seed", c.seed, "draws what the checkpoint lacks")->capture_default_str();
  app.add_flag("--overwrite", c.overwrite, "replace an existing directory");
  app.footer("Example:\n  parscale-convert Qwen/Qwen2-1.5B qwen2-p4 parscale.parscale_n=4 --dtype bfloat16");
  parse_command_line(app, words);
  return c;
}

Options parscale_options(const ConvertCommand& c) {
  for (const std::string& word : c.options)
    if (!word.starts_with("parscale."))
      throw ConfigurationError({.what = "Converting takes parscale options alone",
                                .where = word,
                                .remedy = "write parscale.KEY=VALUE, for example parscale.parscale_n=4"});
  return parse_options({}, c.options);
}

/// "5GB", "500MB", "1000": bytes, in powers of 1000 as in transformers.
std::uint64_t shard_bytes(const std::string& text) {
  std::size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  const std::string unit = text.substr(digits);
  const std::uint64_t factor = unit == "GB"   ? 1'000'000'000
                               : unit == "MB" ? 1'000'000
                               : unit == "KB" ? 1'000
                                              : 1;
  if (digits == 0 || digits > 9 || (factor == 1 && !unit.empty()))
    throw ConfigurationError(
        {.what = "--max-shard-size is not a size", .why = text, .remedy = "write it as 5GB or 500MB"});
  return std::stoull(text.substr(0, digits)) * factor;
}

io::Dtype dtype_of(const std::string& name) {
  for (io::Dtype dtype : {io::Dtype::f32, io::Dtype::bf16, io::Dtype::f16, io::Dtype::f64})
    if (io::transformers_name_of(dtype) == name) return dtype;
  return io::Dtype::f32;
}

/// A number of replicas or a kind that cannot be taken back is refused before anything is read.
io::ModelConfig wanted_config(const ModelDirectory& from, const Options& options) {
  const MergedConfig merged = merge_model_config(options, from.json);
  for (const auto& note : merged.notes) print_note(note);
  for (const auto& warning : merged.warnings) print_warning(warning);
  io::ModelConfig config = io::parse_model_config(merged.config, (from.path / "config.json").string());
  io::detail::check_convertible(from.config.architecture, config.architecture,
                                (from.path / "config.json").string());
  for (const auto& warning : config.warnings) print_warning(warning);
  return config;
}

int convert(const std::vector<std::string>& words) {
  const ConvertCommand c = parse(words);
  const Options options = parscale_options(c);
  const io::SaveOptions base{.max_shard_bytes = shard_bytes(c.shard_size)};
  const ModelDirectory from = open_model_directory(c.model);
  if (std::filesystem::exists(c.out) && !c.overwrite)
    throw ConfigurationError({.what = "The directory to write exists",
                              .where = c.out,
                              .remedy = "choose another, or --overwrite"});
  const io::ModelConfig config = wanted_config(from, options);

  // float32 holds every stored type but float64 exactly, so that converting changes nothing but what was
  // asked.
  LoadReport report;
  const bool wide = from.config.dtype == "float64";
  const auto model = open_model(config, {.checkpoint = from.path, .seed = c.seed},
                                {.compute = wide ? Compute::float64 : Compute::float32}, report);
  print_load_report(report);
  io::SaveOptions save = base;
  save.dtype = dtype_of(c.dtype.empty() ? from.config.dtype : c.dtype);
  save.companions = tokenizer_files(from.path);
  save_model(*model, config, c.out, save);
  print_quietly(stdout, fmt::format("{}: {} parameters, P = {}, {}\n", c.out,
                                    write_count(static_cast<double>(model->parameters())),
                                    config.architecture.replicas, io::transformers_name_of(save.dtype)));
  return 0;
}

}  // namespace
}  // namespace parscale::program

int main(int argc, char** argv) {
  return parscale::program::run_main(argc, argv, {.name = "parscale-convert"}, parscale::program::convert);
}
