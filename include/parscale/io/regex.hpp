/// Regular expressions on UTF-8 text: PCRE2 with Unicode properties, compiled to machine code where it can
/// be.
#pragma once

// The functions of the 8-bit library are called by their full names, which needs no width but the header
// does.
#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 0
#endif
#include <pcre2.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "../core/error.hpp"
#include "unicode.hpp"

namespace parscale::io {

namespace detail {

template <auto free_function>
struct Pcre2Deleter {
  template <class T>
  void operator()(T* object) const {
    free_function(object);
  }
};

inline std::string pcre2_words(int error) {
  std::array<PCRE2_UCHAR8, 256> text{};
  pcre2_get_error_message_8(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace detail

/// What one search needs besides the pattern. One thread at a time may use it.
class RegexScratch {
 public:
  RegexScratch()
      : stack_(pcre2_jit_stack_create_8(std::size_t{32} << 10, std::size_t{4} << 20, nullptr)),
        context_(pcre2_match_context_create_8(nullptr)),
        match_(pcre2_match_data_create_8(1, nullptr)) {
    if (!context_ || !match_) throw std::bad_alloc();
    // Without JIT there is no stack of its own, and a null pointer means the machine's.
    pcre2_jit_stack_assign_8(context_.get(), nullptr, stack_.get());
  }

 private:
  friend class Regex;
  std::unique_ptr<pcre2_jit_stack_8, detail::Pcre2Deleter<&pcre2_jit_stack_free_8>> stack_;
  std::unique_ptr<pcre2_match_context_8, detail::Pcre2Deleter<&pcre2_match_context_free_8>> context_;
  std::unique_ptr<pcre2_match_data_8, detail::Pcre2Deleter<&pcre2_match_data_free_8>> match_;
};

/// A compiled pattern. Searching is const and thread-safe, each thread with its own scratch.
class Regex {
 public:
  struct Match {
    std::size_t begin;
    std::size_t end;
  };

  /// `pattern` in PCRE2's syntax; ^ and $ match at line ends. `where` names its origin in errors. Throws
  /// InputError when the pattern is not valid.
  Regex(const std::string& pattern, const std::string& where) : where_(where) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    const auto* text = reinterpret_cast<PCRE2_SPTR8>(pattern.data());
    const auto context = compile_context();
    code_.reset(pcre2_compile_8(text, pattern.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error,
                                &offset, context.get()));
    if (!code_)
      throw InputError({.what = "A regular expression is not valid or not supported",
                        .where = where,
                        .why = detail::pcre2_words(error) + " (at byte " + std::to_string(offset) + " of " +
                               pattern + ")"});
    // An error here only means that this machine has no JIT; matching then interprets the pattern.
    pcre2_jit_compile_8(code_.get(), PCRE2_JIT_COMPLETE);
  }

  /// The first match in `text` (valid UTF-8) that begins at `from` or later. Throws InputError when the
  /// search exceeds PCRE2's limits.
  std::optional<Match> find(std::string_view text, std::size_t from, RegexScratch& scratch) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR8>(text.data());
    const int count = pcre2_match_8(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                                    scratch.match_.get(), scratch.context_.get());
    if (count == PCRE2_ERROR_NOMATCH) return std::nullopt;
    if (count < 0)
      throw InputError({.what = "A regular expression could not be searched for",
                        .where = where_,
                        .why = detail::pcre2_words(count) + " (from byte " + std::to_string(from) +
                               " of a text of " + std::to_string(text.size()) + " bytes)"});
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer_8(scratch.match_.get());
    return Match{range[0], range[1]};
  }

  /// Calls f(Match) for all matches from left to right. An empty match counts, except at the end of the match
  /// before it.
  template <class F>
  void for_each_match(std::string_view text, RegexScratch& scratch, F&& f) const {
    std::optional<std::size_t> last_end;
    for (std::size_t from = 0; from <= text.size();) {
      const auto match = find(text, from, scratch);
      if (!match) return;
      if (match->begin == match->end && last_end == match->end) {
        from += from < text.size() ? character_at(text, from).length : 1;
        continue;
      }
      f(*match);
      last_end = from = match->end;
    }
  }

 private:
  using CompileContext =
      std::unique_ptr<pcre2_compile_context_8, detail::Pcre2Deleter<&pcre2_compile_context_free_8>>;

  /// Lines end with \n alone, whatever PCRE2 was built for.
  static CompileContext compile_context() {
    CompileContext context(pcre2_compile_context_create_8(nullptr));
    if (!context) throw std::bad_alloc();
    pcre2_set_newline_8(context.get(), PCRE2_NEWLINE_LF);
    return context;
  }

  std::string where_;
  std::unique_ptr<pcre2_code_8, detail::Pcre2Deleter<&pcre2_code_free_8>> code_;
};

}  // namespace parscale::io
