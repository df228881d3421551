/// Generation: prefill, cached decoding and sampling, for one prompt or several of different lengths at once.
#pragma once

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>

#include "causal_lm.hpp"
#include "core/random.hpp"

namespace parscale {

/// How to continue a prompt.
struct GenerateOptions {
  Index max_new_tokens = 128;
  double temperature = 0.0;  ///< 0: greedy, the most likely token
  Index top_k = 0;           ///< sample among the k most likely tokens; 0: all
  double top_p = 1.0;        ///< sample among the most likely tokens that together have this probability
  std::uint64_t seed = 0;    ///< token i of prompt b depends on (seed, b, i) alone
  std::vector<Token> end_tokens = {};  ///< stop after one of these; it is part of the result
  Index vocabulary = 0;  ///< tokens that the tokenizer knows; rows beyond are never chosen; 0: all
  std::function<void(Index prompt, Token)> on_token = {};  ///< called as each token is chosen
};

inline void check(const GenerateOptions& o) {
  const auto refuse = [](const char* what, TextPiece value) {
    throw ConfigurationError({.what = what, .why = concat({"it is ", value})});
  };
  if (o.max_new_tokens < 0) refuse("max_new_tokens must not be negative", o.max_new_tokens);
  if (!(o.temperature >= 0)) refuse("temperature must not be negative", o.temperature);
  if (o.top_k < 0) refuse("top_k must not be negative", o.top_k);
  if (!(o.top_p > 0 && o.top_p <= 1)) refuse("top_p must lie above 0 and not above 1", o.top_p);
}

/// The most likely token of one row of logits; the first of equals. Throws NumericError when one is not a
/// number or none is finite.
template <class T>
Token most_likely(std::span<const T> logits) {
  std::size_t best = 0;
  bool numbers = true;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    numbers = numbers && !std::isnan(logits[i]);
    if (logits[i] > logits[best]) best = i;
  }
  if (!numbers || !std::isfinite(logits[best]))
    throw NumericError(
        {.what = "The model's logits are not finite numbers", .remedy = "check the checkpoint's weights"});
  return static_cast<Token>(best);
}

/// The tokens of a row of weights, the heaviest first, of equals the first. Only as many are put in order as
/// are asked for: a vocabulary has 150,000.
class ByWeight {
  struct Lighter {
    const std::vector<double>& weights;
    bool operator()(Token a, Token b) const {
      const double x = weights[static_cast<std::size_t>(a)], y = weights[static_cast<std::size_t>(b)];
      return x != y ? x < y : a > b;
    }
  };

 public:
  explicit ByWeight(const std::vector<double>& weights) : weights_(weights), heap_(weights.size()) {
    std::iota(heap_.begin(), heap_.end(), Token{0});
    std::make_heap(heap_.begin(), heap_.end(), Lighter{weights_});
  }
  Token operator[](std::size_t i) {
    for (; ordered_ <= i; ++ordered_)
      std::pop_heap(heap_.begin(), heap_.end() - static_cast<std::ptrdiff_t>(ordered_), Lighter{weights_});
    return heap_[heap_.size() - 1 - i];
  }
  double weight(std::size_t i) { return weights_[static_cast<std::size_t>((*this)[i])]; }

 private:
  const std::vector<double>& weights_;
  std::vector<Token> heap_;
  std::size_t ordered_ = 0;
};

/// One token drawn from a row of logits: softmax(logits / temperature) over the top k, then over the top p.
/// `u` is uniform in (0, 1).
template <class T>
Token sample(std::span<const T> logits, const GenerateOptions& o, double u) {
  const Token best = most_likely(logits);
  if (o.temperature == 0) return best;
  const double top = static_cast<double>(logits[static_cast<std::size_t>(best)]);
  std::vector<double> weights(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    weights[i] = std::exp((static_cast<double>(logits[i]) - top) / o.temperature);
  ByWeight ranked(weights);
  const std::size_t k =
      o.top_k > 0 ? std::min(static_cast<std::size_t>(o.top_k), logits.size()) : logits.size();
  double total = 0;
  for (std::size_t i = 0; i < k; ++i) total += k < logits.size() ? ranked.weight(i) : weights[i];
  std::size_t kept = k;
  double sum = total;
  if (o.top_p < 1)
    for (kept = 0, sum = 0; kept < k && (kept == 0 || sum < o.top_p * total); ++kept)
      sum += ranked.weight(kept);
  double draw = u * sum;
  std::size_t drawn = 0;
  for (std::size_t i = 0; i < kept && ranked.weight(i) > 0 && draw >= 0; ++i) {
    draw -= ranked.weight(i);
    drawn = i;
  }
  return ranked[drawn];
}

/// Cached decoding. Sequences may have different lengths: each has its own place in the cache.
template <class Model>
class Decoder {
  using B = typename Model::BackendType;
  using S = Scalar<B>;
  using W = Wide<B>;
  static constexpr Architecture arch = Model::architecture;

 public:
  /// Room for `sequences` sequences of up to `capacity` tokens each.
  Decoder(Model& model, Index sequences, Index capacity)
      : model_(model), capacity_(capacity), past_(static_cast<std::size_t>(sequences), 0) {
    Arena plan;
    take_cache(plan, sequences);
    buffer_ = model.backend().allocate(plan.peak());
    cache_.clear();
    Arena arena(buffer_.data(), plan.peak());
    take_cache(arena, sequences);
  }

  /// Tokens that each sequence has in the cache.
  const std::vector<Index>& lengths() const { return past_; }

  /// Appends tokens to every sequence: ids [B,S], of which sequence b's first lengths[b] are real and the
  /// rest is padding behind them. Returns the logits [B,V] that follow each sequence's last real token.
  std::vector<W> extend(const std::vector<Token>& ids, const std::vector<Index>& lengths) {
    const Index sequences = static_cast<Index>(past_.size()),
                tokens = static_cast<Index>(ids.size()) / sequences;
    Batch batch{.sequences = sequences, .tokens = tokens, .ids = ids};
    check(batch, 1, model_.shape().vocabulary);
    check_lengths(lengths, tokens);
    auto& memory = memory_for(tokens);
    memory.load(batch, past_, model_.backend());
    const View<S> merged = model_.forward(memory, cache_);
    for (std::size_t b = 0; b < past_.size(); ++b) past_[b] += lengths[b];
    return last_logits(merged, lengths, tokens);
  }

  /// One more token for every sequence: tokens [B] -> logits [B,V].
  std::vector<W> decode(const std::vector<Token>& tokens) {
    return extend(tokens, std::vector<Index>(past_.size(), 1));
  }

 private:
  using Memory = typename Model::Memory;

  void take_cache(Arena& arena, Index sequences) {
    for (Index i = 0; i < model_.shape().layers; ++i)
      cache_.push_back(PrefixCache<arch, B>::take_tokens(arena, model_.shape(), sequences, capacity_));
  }

  void check_lengths(const std::vector<Index>& lengths, Index tokens) const {
    if (lengths.size() != past_.size())
      throw ConfigurationError({.what = "Every sequence needs a length",
                                .why = concat({lengths.size(), " lengths, ", past_.size(), " sequences"})});
    for (std::size_t b = 0; b < past_.size(); ++b) {
      if (lengths[b] < 1 || lengths[b] > tokens)
        throw ConfigurationError({.what = "A sequence must be extended by at least one of the given tokens",
                                  .why = concat({lengths[b], " of ", tokens})});
      if (past_[b] + tokens > capacity_)
        throw ConfigurationError({.what = "The cache is full",
                                  .why = concat({past_[b] + tokens, " tokens, room for ", capacity_})});
    }
  }

  /// The memory of single-token steps is kept; a prefill's is used once.
  Memory& memory_for(Index tokens) {
    if (!memory_ || memory_->room().tokens != tokens)
      memory_.emplace(model_.shape(),
                      typename Model::Room{static_cast<Index>(past_.size()), tokens, Keep::nothing, false},
                      model_.backend());
    return *memory_;
  }

  std::vector<W> last_logits(View<S> merged, const std::vector<Index>& lengths, Index tokens) {
    auto& on = model_.backend();
    const Index n = static_cast<Index>(lengths.size()), h = model_.shape().hidden,
                v = model_.shape().vocabulary;
    const auto logits_bytes = static_cast<std::size_t>(n * v) * sizeof(W);
    auto buffer = on.allocate(logits_bytes + static_cast<std::size_t>(n * h) * sizeof(S));
    const View<W> logits{reinterpret_cast<W*>(buffer.data()), {n, v}};
    const View<S> rows{reinterpret_cast<S*>(buffer.data() + logits_bytes), {n, h}};
    for (Index b = 0; b < n; ++b) {
      const Index last = b * tokens + lengths[static_cast<std::size_t>(b)] - 1;
      on.copy(In<S>{merged.row(last), {1, h}}, View<S>{rows.row(b), {1, h}});
    }
    model_.head(rows, logits);
    std::vector<W> result(static_cast<std::size_t>(n * v));
    on.to_host(logits.readable(), result.data());
    return result;
  }

  Model& model_;
  Index capacity_;
  std::vector<Index> past_;
  typename B::Buffer buffer_{};
  typename Model::Cache cache_;
  std::optional<Memory> memory_;
};

namespace detail {

/// Prompts [B] of different lengths as ids [B, longest], padded behind with token 0.
inline std::vector<Token> padded(const std::vector<std::vector<Token>>& prompts, std::size_t longest) {
  std::vector<Token> ids(prompts.size() * longest, 0);
  for (std::size_t b = 0; b < prompts.size(); ++b)
    std::copy(prompts[b].begin(), prompts[b].end(), ids.begin() + static_cast<std::ptrdiff_t>(b * longest));
  return ids;
}

}  // namespace detail

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
std::vector<std::vector<Token>> BasicCausalLM<arch, B, StoreOf>::generate(
    const std::vector<std::vector<Token>>& prompts, const GenerateOptions& options) {
  check(options);
  std::vector<std::vector<Token>> results(prompts.size());
  std::vector<Index> lengths;
  for (const auto& prompt : prompts) lengths.push_back(static_cast<Index>(prompt.size()));
  if (prompts.empty() || options.max_new_tokens == 0) return results;
  const auto [shortest, longest] = std::minmax_element(lengths.begin(), lengths.end());
  if (*shortest == 0) throw ConfigurationError({.what = "A prompt needs at least one token"});

  Decoder<BasicCausalLM> decoder(*this, static_cast<Index>(prompts.size()),
                                 *longest + options.max_new_tokens);
  auto logits = decoder.extend(detail::padded(prompts, static_cast<std::size_t>(*longest)), lengths);
  const auto rows = static_cast<std::size_t>(shape_.vocabulary);
  const auto known =
      options.vocabulary > 0 ? std::min(rows, static_cast<std::size_t>(options.vocabulary)) : rows;
  std::vector<Token> next(prompts.size(), 0);
  std::vector<bool> done(prompts.size(), false);
  for (Index i = 0; i < options.max_new_tokens; ++i) {
    for (std::size_t b = 0; b < prompts.size(); ++b) {
      if (done[b]) continue;
      const std::span<const Wide<B>> row(logits.data() + b * rows, known);
      next[b] = sample(row, options, uniform(options.seed, b, static_cast<std::uint64_t>(i)));
      results[b].push_back(next[b]);
      if (options.on_token) options.on_token(static_cast<Index>(b), next[b]);
      done[b] = std::find(options.end_tokens.begin(), options.end_tokens.end(), next[b]) !=
                options.end_tokens.end();
    }
    if (i + 1 == options.max_new_tokens || std::find(done.begin(), done.end(), false) == done.end()) break;
    logits = decoder.decode(next);
  }
  return results;
}

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
std::vector<Token> BasicCausalLM<arch, B, StoreOf>::generate(std::span<const Token> prompt,
                                                             const GenerateOptions& options) {
  return generate(std::vector<std::vector<Token>>{{prompt.begin(), prompt.end()}}, options).front();
}

}  // namespace parscale
