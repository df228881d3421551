/// Pre-tokenisation: text is cut into words, and merges never cross a cut. A chain of splitters, each cutting
/// the pieces of the one before, ends in the byte-level step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "oniguruma.hpp"
#include "regex.hpp"

namespace parscale::io {

/// What becomes of the matches of a splitter's pattern and of the text between them.
enum class SplitBehavior : std::uint8_t {
  isolated,              ///< each match and each stretch between matches is a piece
  removed,               ///< matches are dropped
  contiguous,            ///< neighbouring matches are one piece
  merged_with_previous,  ///< a match ends the piece before it
  merged_with_next,      ///< a match begins the piece after it
};

/// Cuts a text at the matches of a pattern.
class Splitter {
 public:
  /// `inverted`: the stretches between matches are treated as the matches and the other way round.
  explicit Splitter(Regex regex, SplitBehavior behavior = SplitBehavior::isolated, bool inverted = false)
      : regex_(std::move(regex)), behavior_(behavior), inverted_(inverted) {}

  /// Calls f(piece) from left to right; pieces are never empty.
  template <class F>
  void for_each_piece(std::string_view text, RegexScratch& scratch, F&& f) const {
    Joiner joiner{behavior_};
    std::size_t end = 0;
    regex_.for_each_match(text, scratch, [&](Regex::Match match) {
      if (end != match.begin) joiner.add({end, match.begin, inverted_}, text, f);
      joiner.add({match.begin, match.end, !inverted_}, text, f);
      end = match.end;
    });
    if (end != text.size()) joiner.add({end, text.size(), inverted_}, text, f);
    joiner.finish(text, f);
  }

 private:
  /// A match or what lies between two.
  struct Stretch {
    std::size_t begin;
    std::size_t end;
    bool matches;
  };

  /// Joins neighbouring stretches as the behaviour asks, and hands on what is complete.
  struct Joiner {
    SplitBehavior behavior;
    Stretch pending = {0, 0, false};
    bool previous_matches = false;  // of the last stretch in `pending`

    template <class F>
    void add(Stretch next, std::string_view text, F& f) {
      if (joins(next.matches)) {
        pending.end = next.end;
      } else {
        finish(text, f);
        pending = next;
      }
      previous_matches = next.matches;
    }

    template <class F>
    void finish(std::string_view text, F& f) const {
      if (pending.begin == pending.end) return;
      if (behavior == SplitBehavior::removed && pending.matches) return;
      f(text.substr(pending.begin, pending.end - pending.begin));
    }

    bool joins(bool next_matches) const {
      switch (behavior) {
        case SplitBehavior::contiguous:
          return previous_matches == next_matches;
        case SplitBehavior::merged_with_previous:
          return !previous_matches && next_matches;
        case SplitBehavior::merged_with_next:
          return previous_matches && !next_matches;
        case SplitBehavior::isolated:
        case SplitBehavior::removed:
          break;
      }
      return false;
    }
  };

  Regex regex_;
  SplitBehavior behavior_;
  bool inverted_;
};

/// The byte-level step of a pre-tokeniser, in front of the conversion to bytes.
struct ByteLevelStep {
  bool add_prefix_space = false;                    ///< pieces that do not begin with a space get one
  std::optional<Splitter> splitter = std::nullopt;  ///< cuts after that, usually by gpt2_splitter()

  static Splitter gpt2_splitter() {
    return Splitter(Regex(pcre2_from_oniguruma(gpt2_pattern, "ByteLevel"), "ByteLevel"));
  }
  static constexpr std::string_view gpt2_pattern =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
};

/// A tokenizer's whole chain.
class PreTokenizer {
 public:
  /// What cutting needs besides the text; one thread at a time.
  struct Scratch {
    RegexScratch regex = {};
    std::string prefixed = {};
  };

  PreTokenizer(std::vector<Splitter> splitters, ByteLevelStep byte_level)
      : splitters_(std::move(splitters)), byte_level_(std::move(byte_level)) {}

  /// Calls f(word) for the words of a valid text from left to right; words are never empty and live during
  /// the call only.
  template <class F>
  void for_each_word(std::string_view text, Scratch& scratch, F&& f) const {
    if (!text.empty()) cut(0, text, scratch, f);
  }

 private:
  template <class F>
  void cut(std::size_t stage, std::string_view piece, Scratch& scratch, F& f) const {
    if (stage == splitters_.size()) return cut_into_words(piece, scratch, f);
    splitters_[stage].for_each_piece(piece, scratch.regex,
                                     [&](std::string_view part) { cut(stage + 1, part, scratch, f); });
  }

  template <class F>
  void cut_into_words(std::string_view piece, Scratch& scratch, F& f) const {
    if (byte_level_.add_prefix_space && piece[0] != ' ') {
      scratch.prefixed = ' ';
      piece = scratch.prefixed.append(piece);
    }
    if (!byte_level_.splitter) return f(piece);
    byte_level_.splitter->for_each_piece(piece, scratch.regex, f);
  }

  std::vector<Splitter> splitters_;
  ByteLevelStep byte_level_;
};

}  // namespace parscale::io
