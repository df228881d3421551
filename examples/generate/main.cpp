// parscale-generate: continues a prompt, and streams the text as it comes.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <parscale/io/stream_decoder.hpp>

#include "common/console.hpp"
#include "common/load_report.hpp"
#include "common/model_files.hpp"
#include "common/placement.hpp"

namespace parscale::program {
namespace {

struct GenerateCommand {
  std::string model;
  std::optional<std::string> prompt;
  std::vector<Token> prompt_ids;
  GenerateOptions options;
  bool ignore_eos = false, print_ids = false;
  PlacementCommand placement;
};

GenerateCommand parse(const std::vector<std::string>& words) {
  GenerateCommand c;
  CLI::App app("Continues a prompt with a Qwen2 or ParScale model.", "parscale-generate");
  app.add_option("model", c.model, "Hugging Face directory, or a hub name in the local cache")->required();
  auto* prompt = app.add_option("--prompt", c.prompt, "text to continue");
  auto* ids = app.add_option("--prompt-ids", c.prompt_ids, "token ids to continue, as 5,7,9")->delimiter(',');
  prompt->excludes(ids);
  app.add_option("--max-new-tokens", c.options.max_new_tokens, "tokens to add at most")
      ->capture_default_str();
  app.add_option("--temperature", c.options.temperature, "0: always the most likely token")
      ->capture_default_str();
  app.add_option("--top-k", c.options.top_k, "sample among the k most likely tokens; 0: all")
      ->capture_default_str();
  app.add_option("--top-p", c.options.top_p, "sample among tokens of together this probability")
      ->capture_default_str();
  app.add_option("--seed", c.options.seed, "of sampling")->capture_default_str();
  app.add_flag("--ignore-eos", c.ignore_eos, "go on after an end token");
  app.add_flag("--print-ids", c.print_ids, "last line: ids of prompt and continuation, comma-separated");
  c.placement.add_to(app);
  app.footer("Example:\n  parscale-generate my-model --prompt \"It was\" --temperature 0.8 --top-p 0.95");
  parse_command_line(app, words);
  if (!c.prompt && c.prompt_ids.empty())
    throw ConfigurationError(
        {.what = "There is nothing to continue", .remedy = "give --prompt TEXT or --prompt-ids 5,7,9"});
  check(c.options);
  return c;
}

/// The tokenizer beside the model. A prompt of ids does not need one: then the text is not shown.
std::optional<io::Tokenizer> tokenizer_for(const GenerateCommand& c, const std::filesystem::path& directory) {
  if (!c.prompt && !std::filesystem::exists(directory / "tokenizer.json")) return std::nullopt;
  return io::Tokenizer::load(directory);
}

std::string joined_ids(const std::vector<Token>& prompt, const std::vector<Token>& continuation) {
  std::vector<Token> all = prompt;
  all.insert(all.end(), continuation.begin(), continuation.end());
  return fmt::format("{}\n", fmt::join(all, ","));
}

int generate(const std::vector<std::string>& words) {
  GenerateCommand c = parse(words);
  const ModelDirectory directory = open_model_directory(c.model);
  const auto tokenizer = tokenizer_for(c, directory.path);
  const std::vector<Token> prompt = c.prompt ? tokenizer->encode(*c.prompt) : c.prompt_ids;
  if (prompt.empty())
    throw ConfigurationError({.what = "The prompt has no tokens", .remedy = "give a longer --prompt"});

  LoadReport report;
  const auto model =
      open_model(directory.config, {.checkpoint = directory.path}, c.placement.placement(), report);
  for (const auto& warning : directory.config.warnings) print_warning(warning);
  print_load_report(report);

  if (!c.ignore_eos) c.options.end_tokens = directory.config.eos_token_ids;
  std::optional<io::StreamDecoder> text;
  if (tokenizer) {
    c.options.vocabulary = tokenizer->size();
    text.emplace(*tokenizer, io::SpecialTokens::skip);
    print_quietly(stdout, tokenizer->decode(prompt));
    c.options.on_token = [&](Index, Token token) { print_quietly(stdout, text->push(token)); };
  }
  const auto continuation = model->generate({prompt}, c.options).front();
  if (text) print_quietly(stdout, text->flush() + "\n");
  if (c.print_ids || !text) print_quietly(stdout, joined_ids(prompt, continuation));
  return 0;
}

}  // namespace
}  // namespace parscale::program

int main(int argc, char** argv) {
  return parscale::program::run_main(argc, argv, {.name = "parscale-generate"}, parscale::program::generate);
}
