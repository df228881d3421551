/// What every program does around its work: help, version, errors as text and exit codes, colours.
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace parscale::program {

/// Who a program is. With `help` set, run_main() answers --help and -h itself; programs that parse with CLI11
/// leave it empty.
struct About {
  std::string name;                        ///< parscale-train
  std::function<std::string()> help = {};  ///< the text of --help
};

/// Thrown to end a program with success after `text` has been printed on standard output (--help).
struct Finished {
  std::string text;
};

/// Runs `body` with the words of the command line and returns the program's exit code: the body's own, the
/// code of a parscale::Error, 4 for errors of the file system, 1 for everything unforeseen. What went wrong
/// is said on standard error.
int run_main(int argc, char** argv, const About& about,
             const std::function<int(const std::vector<std::string>& words)>& body);

/// Parses with CLI11. Throws Finished for --help, ConfigurationError for everything it cannot read.
void parse_command_line(CLI::App& app, std::vector<std::string> words);

/// Whether the stream is a terminal that understands colours; $NO_COLOR and TERM=dumb are honoured.
bool has_colours(std::FILE* stream);
/// Columns of the terminal, 0 when the stream is none.
int columns_of(std::FILE* stream);

/// One line on standard error: "note: ..." or the like, coloured on a terminal.
void print_note(const std::string& text);
void print_warning(const std::string& text);
void print_error(const std::string& text) noexcept;
/// From now on this process prints errors alone: another one speaks for it.
void print_only_errors();

/// Writes and flushes; a closed pipe or a full disk behind the stream is not this program's failure.
void print_quietly(std::FILE* stream, const std::string& text) noexcept;

}  // namespace parscale::program
