/// What the operands of each operation must look like: their shapes, as on any backend, and what is in them.
#pragma once

#include "../checks.hpp"

namespace parscale::cpu {

using op::check;

/// Where the tokens stand: within the cache, and each in a document that has begun.
inline void check_places(const char* operation, const Layout& layout, Index capacity) {
  const Operands on(operation);
  for (Index b = 0; layout.past && b < layout.sequences; ++b) {
    const Index past = layout.past.data[b];
    on.rule(past >= 0 && past + layout.tokens <= capacity, "sequence ", b, " has ", past, " tokens and gets ",
            layout.tokens, ", the cache holds ", capacity);
  }
  for (Index n = 0; layout.starts && n < layout.positions(); ++n) {
    const Index start = layout.starts.data[n], token = n % layout.tokens;
    on.rule(start >= 0 && start <= token, "token ", token, " has its document start at ", start);
  }
}

/// Token numbers must name rows of a table. Negative ones pass when they mean "none".
inline void check_tokens(const char* operation, In<Token> tokens, Index vocabulary, bool negative_is_none) {
  for (Index i = 0; i < tokens.count(); ++i) {
    const Index token = tokens.data[i];
    if (token < vocabulary && (token >= 0 || negative_is_none)) continue;
    throw InputError({.what = "A token lies outside the vocabulary",
                      .where = concat({operation, ", position ", i}),
                      .why = concat({"token ", token, ", the vocabulary has ", vocabulary, " rows"})});
  }
}

}  // namespace parscale::cpu
