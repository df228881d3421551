#include "console.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <parscale/core/error.hpp>
#include <string_view>

namespace parscale::program {
namespace {

constexpr int unforeseen = 1;
constexpr int storage = 4;
bool only_errors = false;

/// "error: ..." or the like, its first word in colour.
void print_labelled(const char* colour, const char* label, const std::string& text) noexcept {
  try {
    const bool coloured = has_colours(stderr);
    print_quietly(stderr, (coloured ? std::string("\x1b[") + colour + "m" : "") + label + ":" +
                              (coloured ? "\x1b[0m " : " ") + text + "\n");
  } catch (const std::exception&) {
    print_quietly(stderr, {});  // out of memory: there is nothing left to say it with
  }
}

int fail(const std::string& text, int code) noexcept {
  print_error(text);
  return code;
}

/// True for `word` before any `--`, behind which everything is a value.
bool asks_for(const std::vector<std::string>& words, std::string_view word) {
  const auto end = std::find(words.begin(), words.end(), "--");
  return std::find(words.begin(), end, word) != end;
}

int run(const About& about, const std::vector<std::string>& words,
        const std::function<int(const std::vector<std::string>&)>& body) {
  if (words.size() == 1 && words[0] == "--version") throw Finished{about.name + " " PARSCALE_VERSION "\n"};
  if (about.help && (asks_for(words, "--help") || asks_for(words, "-h"))) throw Finished{about.help()};
  return body(words);
}

}  // namespace

int run_main(int argc, char** argv, const About& about,
             const std::function<int(const std::vector<std::string>& words)>& body) {
  try {
    return run(about, std::vector<std::string>(argv + std::min(1, argc), argv + argc), body);
  } catch (const Finished& finished) {
    print_quietly(stdout, finished.text);
    return 0;
  } catch (const Error& error) {
    return fail(error.what(), error.exit_code());
  } catch (const std::filesystem::filesystem_error& error) {
    return fail(std::string(error.what()) + "\n  try:   check that the path exists and may be written to",
                storage);
  } catch (const std::bad_alloc&) {
    return fail(
        "there is not enough memory\n  try:   smaller batches or sequences, or training.recompute=layer",
        unforeseen);
  } catch (const std::exception& error) {
    return fail(
        std::string(error.what()) + "\n  why:   " + about.name + " did not foresee this; please report it",
        unforeseen);
  } catch (...) {
    return fail("something was thrown that is no exception; please report it", unforeseen);
  }
}

void parse_command_line(CLI::App& app, std::vector<std::string> words) {
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    app.parse(std::move(words));
  } catch (const CLI::CallForHelp&) {
    throw Finished{app.help()};
  } catch (const CLI::CallForAllHelp&) {
    throw Finished{app.help("", CLI::AppFormatMode::All)};
  } catch (const CLI::ParseError& error) {
    throw ConfigurationError(
        {.what = error.what(), .where = "command line", .remedy = "--help lists all options"});
  }
}

bool has_colours(std::FILE* stream) {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return (no_colour == nullptr || *no_colour == '\0') && terminal != nullptr &&
         std::string_view(terminal) != "dumb" && ::isatty(::fileno(stream)) == 1;
}

int columns_of(std::FILE* stream) {
  winsize size{};
  if (::isatty(::fileno(stream)) != 1) return 0;
  constexpr int usual = 80;
  return ::ioctl(::fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : usual;
}

void print_note(const std::string& text) {
  if (!only_errors) print_labelled("36", "note", text);
}
void print_warning(const std::string& text) {
  if (!only_errors) print_labelled("1;33", "warning", text);
}
void print_error(const std::string& text) noexcept { print_labelled("1;31", "error", text); }

void print_only_errors() {
  only_errors = true;
  if (std::freopen("/dev/null", "w", stdout) == nullptr) std::clearerr(stdout);
}

void print_quietly(std::FILE* stream, const std::string& text) noexcept {
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fflush(stream);
  std::clearerr(stream);  // what could not be written is forgotten, not tried again for ever
}

}  // namespace parscale::program
