/// Errors: one exception type for each way a program can end.
#pragma once

#include <stdexcept>
#include <string>

#include "text.hpp"

namespace parscale {

/// What an error message answers. `what` is mandatory; the others are printed when they say something.
struct Explanation {
  std::string what;         ///< what went wrong, as one sentence
  std::string where = {};   ///< file, key, tensor, line, rank or step
  std::string why = {};     ///< the values that broke the rule, or the system's own words
  std::string remedy = {};  ///< what to do about it

  /// Not inline in every function that throws, where it would stand twice; `= default` would be.
  // NOLINTNEXTLINE(modernize-use-equals-default)
  [[gnu::noinline, gnu::cold]] ~Explanation() {}
};

/// Base of every exception thrown by parscale. `exit_code()` is what the programs return for it.
class Error : public std::runtime_error {
 public:
  const Explanation& explanation() const noexcept { return explanation_; }
  int exit_code() const noexcept { return exit_code_; }

 protected:
  Error(int exit_code, const Explanation& e)
      : std::runtime_error(text(e)), explanation_(e), exit_code_(exit_code) {}

 private:
  static std::string text(const Explanation& e) {
    std::string out = e.what;
    if (!e.where.empty()) out += "\n  where: " + e.where;
    if (!e.why.empty()) out += "\n  why:   " + e.why;
    if (!e.remedy.empty()) out += "\n  try:   " + e.remedy;
    return out;
  }

  Explanation explanation_;
  int exit_code_;
};

/// An option, a configuration or a call that asks for something impossible. Exit code 2.
class ConfigurationError : public Error {
 public:
  explicit ConfigurationError(const Explanation& e) : Error(2, e) {}
};

/// An input file that is missing, malformed or of an unsupported kind. Exit code 3.
class InputError : public Error {
 public:
  explicit InputError(const Explanation& e) : Error(3, e) {}
};

/// Writing failed, or what was written earlier is damaged: a full disk, a flipped bit. Exit code 4.
class StorageError : public Error {
 public:
  explicit StorageError(const Explanation& e) : Error(4, e) {}
};

/// Another process died, hung or disagrees. Exit code 5.
class PeerError : public Error {
 public:
  explicit PeerError(const Explanation& e) : Error(5, e) {}
};

/// A loss or gradient that is not a finite number. Exit code 6.
class NumericError : public Error {
 public:
  explicit NumericError(const Explanation& e) : Error(6, e) {}
};

}  // namespace parscale
