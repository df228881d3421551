// parscale-tokenize: text files to a file of tokens, or JSON lines to JSON lines, in both directions.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "common/console.hpp"
#include "jsonl.hpp"
#include "token_file.hpp"

namespace parscale::program {
namespace {

struct TokenizeCommand {
  std::string tokenizer;
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path output;
  std::string end_token;
  std::string dtype = "int64";
  bool jsonl = false, decode = false, skip_special = false;
};

constexpr const char* examples =
    "Examples:\n"
    "  parscale-tokenize --tokenizer tokenizer.json emma.txt persuasion.txt novels.safetensors\n"
    "  parscale-tokenize --tokenizer my-model --end-token '<|endoftext|>' a.txt b.txt tokens.safetensors\n"
    "  echo '{\"text\": \"It was\"}' | parscale-tokenize --tokenizer my-model --jsonl\n"
    "  echo '{\"ids\": [2132, 572]}' | parscale-tokenize --tokenizer my-model --jsonl --decode\n\n"
    "The file of tokens is a safetensors file with one tensor, input_ids [N].\n"
    "Exit codes: 0 done, 2 wrong options, 3 unreadable input, 4 writing failed.";

/// The last of the files is the output. Throws ConfigurationError.
void divide_files(std::vector<std::string> files, TokenizeCommand& c) {
  if (files.size() < 2)
    throw ConfigurationError({.what = "Input files and an output file are needed",
                              .why = "there are " + std::to_string(files.size()) + " file names",
                              .remedy = "write IN... OUT.safetensors, or --jsonl to work on standard input"});
  c.output = files.back();
  if (c.output.extension() != ".safetensors")
    throw ConfigurationError({.what = "The last file is the output, and its name ends in .safetensors",
                              .where = c.output.string(),
                              .remedy = "add the name of the file to write"});
  files.pop_back();
  c.inputs.assign(files.begin(), files.end());
}

TokenizeCommand parse(const std::vector<std::string>& words) {
  TokenizeCommand c;
  std::vector<std::string> files;
  CLI::App app("Turns text into tokens and back.", "parscale-tokenize");
  app.add_option("files", files, "text files (UTF-8) and, last, the file to write: IN... OUT.safetensors");
  app.add_option("--tokenizer", c.tokenizer, "tokenizer.json, or a directory with one")->required();
  auto* end_token =
      app.add_option("--end-token", c.end_token, "token to put behind each file, as <|endoftext|>");
  auto* dtype = app.add_option("--dtype", c.dtype, "of the written tokens")
                    ->check(CLI::IsMember({"int32", "int64"}))
                    ->capture_default_str();
  auto* jsonl =
      app.add_flag("--jsonl", c.jsonl, "{\"text\": ...} lines on standard input to {\"ids\": [...]} lines");
  auto* decode =
      app.add_flag("--decode", c.decode, "with --jsonl: the other way, {\"ids\": [...]} to {\"text\": ...}");
  app.add_flag("--skip-special", c.skip_special, "with --decode: leave special tokens out")->needs(decode);
  decode->needs(jsonl);
  jsonl->excludes(end_token)->excludes(dtype);
  app.footer(examples);
  parse_command_line(app, words);
  if (!c.jsonl) {
    divide_files(std::move(files), c);
  } else if (!files.empty()) {
    throw ConfigurationError(
        {.what = "--jsonl reads standard input and takes no files", .where = files.front()});
  }
  return c;
}

void tokenize_lines(const TokenizeCommand& c, const io::Tokenizer& tokenizer) {
  std::ios::sync_with_stdio(false);
  if (c.decode)
    decode_lines(tokenizer, c.skip_special ? io::SpecialTokens::skip : io::SpecialTokens::keep, std::cin,
                 std::cout);
  else
    encode_lines(tokenizer, std::cin, std::cout);
}

/// The token to put behind each file. Throws ConfigurationError when the tokenizer lacks it.
std::optional<std::int32_t> end_token_of(const TokenizeCommand& c, const io::Tokenizer& tokenizer) {
  if (c.end_token.empty()) return std::nullopt;
  const auto id = tokenizer.id_of(c.end_token);
  if (!id)
    throw ConfigurationError({.what = "The tokenizer has no such token",
                              .where = "--end-token " + c.end_token,
                              .remedy = "look into its added_tokens"});
  return id;
}

void tokenize_into_file(const TokenizeCommand& c, const io::Tokenizer& tokenizer) {
  const auto ids = tokenize_files(tokenizer, c.inputs, end_token_of(c, tokenizer));
  write_token_file(c.output, ids, c.dtype == "int32" ? io::Dtype::i32 : io::Dtype::i64, tokenizer);
  print_quietly(stdout, fmt::format("{}: {} tokens of {} {}\n", c.output.string(), ids.size(),
                                    c.inputs.size(), c.inputs.size() == 1 ? "file" : "files"));
}

int tokenize(const std::vector<std::string>& words) {
  const TokenizeCommand c = parse(words);
  const auto tokenizer = io::Tokenizer::load(c.tokenizer);
  if (c.jsonl)
    tokenize_lines(c, tokenizer);
  else
    tokenize_into_file(c, tokenizer);
  return 0;
}

}  // namespace
}  // namespace parscale::program

int main(int argc, char** argv) {
  return parscale::program::run_main(argc, argv, {.name = "parscale-tokenize"}, parscale::program::tokenize);
}
