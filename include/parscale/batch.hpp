/// What one forward pass reads: token ids on the host, with the targets that count.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.hpp"

namespace parscale {

/// A target that does not count in the loss.
inline constexpr Token no_target = -1;

/// B sequences of S tokens. Build one with `batch_of`, or fill the fields.
struct Batch {
  Index sequences = 0;              ///< B
  Index tokens = 0;                 ///< S
  std::vector<Token> ids = {};      ///< [B,S], or [P,B,S] when every replica reads its own tokens
  std::vector<Token> targets = {};  ///< [B,S] next tokens, no_target where none; needed for a loss only
  std::vector<std::int32_t> starts =
      {};  ///< [B,S] first token of each token's document; empty: nothing is cut

  /// Positions that count in the loss.
  Index counted() const {
    Index n = 0;
    for (Token target : targets) n += target >= 0 ? 1 : 0;
    return n;
  }
};

/// The next token of each position of ids [B,S]; none for the last of a row, nor across a document's end.
inline std::vector<Token> next_tokens(std::span<const Token> ids, Index tokens,
                                      std::span<const std::int32_t> starts) {
  std::vector<Token> targets(ids.size(), no_target);
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
    const bool last = (static_cast<Index>(i) + 1) % tokens == 0;
    const bool cut = !last && !starts.empty() && starts[i + 1] != starts[i];
    if (!last && !cut) targets[i] = ids[i + 1];
  }
  return targets;
}

/// A batch for ids [B,S] whose targets are the next tokens.
inline Batch batch_of(std::vector<Token> ids, Index sequences, std::vector<std::int32_t> starts = {}) {
  if (sequences < 1 || ids.empty() || static_cast<Index>(ids.size()) % sequences != 0)
    throw ConfigurationError({.what = "The tokens of a batch must form full rows",
                              .why = concat({ids.size(), " tokens, ", sequences, " rows"})});
  if (!starts.empty() && starts.size() != ids.size())
    throw ConfigurationError({.what = "Every token of a batch needs a document start, or none",
                              .why = concat({starts.size(), " starts, ", ids.size(), " tokens"})});
  Batch batch{.sequences = sequences, .tokens = static_cast<Index>(ids.size()) / sequences};
  batch.targets = next_tokens(ids, batch.tokens, starts);
  batch.ids = std::move(ids);
  batch.starts = std::move(starts);
  return batch;
}

namespace detail {

inline void check_tokens(std::span<const Token> tokens, const char* what, Token least, Index vocabulary) {
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < least || tokens[i] >= vocabulary)
      throw InputError({.what = concat({"A ", what, " lies outside the vocabulary"}),
                        .where = concat({"position ", i}),
                        .why = concat({tokens[i], ", the vocabulary has ", vocabulary, " entries"}),
                        .remedy = "use the tokenizer that belongs to this model"});
}

inline void check_size(std::size_t is, Index expected, const char* what) {
  if (static_cast<Index>(is) != expected)
    throw ConfigurationError({.what = concat({"A batch has the wrong number of ", what}),
                              .why = concat({is, " instead of ", expected})});
}

}  // namespace detail

/// The rules of a batch for a model of `replicas` and `vocabulary`. Throws what the caller did wrong.
inline void check(const Batch& batch, int replicas, Index vocabulary) {
  if (batch.sequences < 1 || batch.tokens < 1)
    throw ConfigurationError({.what = "A batch needs at least one sequence of one token"});
  const Index positions = batch.sequences * batch.tokens;
  const bool own = static_cast<Index>(batch.ids.size()) == replicas * positions;
  if (!own) detail::check_size(batch.ids.size(), positions, "ids");
  detail::check_tokens(batch.ids, "token", 0, vocabulary);
  if (!batch.targets.empty()) detail::check_size(batch.targets.size(), positions, "targets");
  detail::check_tokens(batch.targets, "target", no_target, vocabulary);
  if (batch.starts.empty()) return;
  detail::check_size(batch.starts.size(), positions, "document starts");
  for (Index i = 0; i < positions; ++i) {
    const std::int32_t start = batch.starts[static_cast<std::size_t>(i)];
    if (start < 0 || start > i % batch.tokens)
      throw ConfigurationError(
          {.what = "A document start lies after its token", .where = concat({"position ", i})});
  }
}

}  // namespace parscale
