/// Numbers as people, YAML and Python write them: 3, -1, 1e3, 3e-4, 1e-05, .5
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace parscale::program {

/// What a word says when it is read as a number.
struct Number {
  enum class Kind {
    text,     ///< not a number at all
    integer,  ///< written without point and exponent
    real,     ///< written with point or exponent; finite
    unclear,  ///< a number that nobody should guess at; `why` says it
  };
  Kind kind = Kind::text;
  std::int64_t integer = 0;
  double real = 0;       ///< also set for integers
  std::string why = {};  ///< continues "'010' ..."
};

/// Reads a word. Unclear are leading zeros (010 is 8 to YAML and 10 to people), 0x and 0o forms, digits with
/// underscores, what is not finite, and what no 64-bit type holds.
Number read_number(std::string_view word);

/// The shortest text that reads back as the same value: 0.0003, 1e-08.
std::string write_number(double value);

}  // namespace parscale::program
