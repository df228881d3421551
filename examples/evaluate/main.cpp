// parscale-evaluate: the loss of a model on text or on given tokens, and its logits.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <parscale/io/documents.hpp>
#include <parscale/io/tokenizer.hpp>

#include "common/console.hpp"
#include "common/load_report.hpp"
#include "common/model_files.hpp"
#include "common/placement.hpp"
#include "evaluation.hpp"

namespace parscale::program {
namespace {

struct EvaluateCommand {
  std::string model;
  std::vector<std::string> data;
  std::string input_ids, dump_logits, text_field = "text";
  Index max_length = 0, batch = 4;
  bool json = false;
  PlacementCommand placement;
};

EvaluateCommand parse(const std::vector<std::string>& words) {
  EvaluateCommand c;
  CLI::App app("The mean next-token loss of a model, on text or on given tokens.", "parscale-evaluate");
  app.add_option("model", c.model, "Hugging Face directory, or a hub name in the local cache")->required();
  auto* data =
      app.add_option("--data", c.data, "text: files, folders or globs (.txt, .jsonl, also .gz and .zst)");
  auto* ids =
      app.add_option("--input-ids", c.input_ids, "safetensors file with `input_ids` [B,S], used as they are");
  data->excludes(ids);
  app.add_option("--dump-logits", c.dump_logits, "write `logits` [B,S,V] F32 to this safetensors file")
      ->needs(ids);
  app.add_option("--max-length", c.max_length,
                 "tokens of a row of text; 0: 2048, or what the model was made for");
  app.add_option("--batch-size", c.batch, "rows at once")->check(CLI::Range(1, 65536))->capture_default_str();
  app.add_option("--text-field", c.text_field, "of .jsonl files")->capture_default_str();
  c.placement.add_to(app);
  app.add_flag("--json", c.json, "last line: one JSON object with loss, perplexity and tokens");
  app.footer("Example:\n  parscale-evaluate my-model --data novel.txt --json");
  parse_command_line(app, words);
  if (c.data.empty() && c.input_ids.empty())
    throw ConfigurationError(
        {.what = "There is nothing to evaluate", .remedy = "give --data FILE... or --input-ids FILE"});
  return c;
}

std::vector<Batch> batches_of(const EvaluateCommand& c, const ModelDirectory& directory) {
  if (!c.input_ids.empty()) return batches_of_ids(c.input_ids, c.batch);
  const Index length =
      c.max_length > 0 ? c.max_length : std::min<Index>(2048, directory.config.max_position_embeddings);
  if (length < 2)
    throw ConfigurationError({.what = "--max-length must be at least 2: a token and the next one"});
  return batches_of_text(c.data, c.text_field, directory, length, c.batch);
}

int run(const std::vector<std::string>& words) {
  const EvaluateCommand c = parse(words);
  const ModelDirectory directory = open_model_directory(c.model);
  const auto batches = batches_of(c, directory);
  LoadReport report;
  const auto model =
      open_model(directory.config, {.checkpoint = directory.path}, c.placement.placement(), report);
  for (const auto& warning : directory.config.warnings) print_warning(warning);
  print_load_report(report);
  const Evaluation result =
      c.dump_logits.empty() ? evaluate(*model, batches) : evaluate_and_dump(*model, batches, c.dump_logits);
  print_quietly(stdout, fmt::format("loss {:.6f} nats a token, perplexity {:.4f}, {} tokens predicted\n",
                                    result.loss, std::exp(result.loss), result.tokens));
  if (c.json) {
    io::Json json = {{"loss", result.loss}, {"perplexity", std::exp(result.loss)}, {"tokens", result.tokens}};
    print_quietly(stdout, json.dump() + "\n");
  }
  return 0;
}

}  // namespace
}  // namespace parscale::program

int main(int argc, char** argv) {
  return parscale::program::run_main(argc, argv, {.name = "parscale-evaluate"}, parscale::program::run);
}
