// Cached decoding: whatever way tokens enter the cache, the logits are those of the whole forward.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <parscale/generate.hpp>

#include "../support/small_model.hpp"
#include "../support/thrown.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using D = double;

/// Logits after the first `length` tokens of a sequence, by the whole forward.
template <class Model>
std::vector<D> whole(Model& model, const std::vector<Token>& ids, Index length) {
  const auto logits = model.logits(batch_of({ids.begin(), ids.begin() + length}, 1));
  return {logits.end() - model.shape().vocabulary, logits.end()};
}

/// Row b of logits [B,V].
std::vector<D> row(const std::vector<D>& logits, std::size_t b, const Shape& shape) {
  const auto first = logits.begin() + static_cast<std::ptrdiff_t>(b) * shape.vocabulary;
  return {first, first + shape.vocabulary};
}

std::vector<Token> part(const std::vector<Token>& ids, Index begin, Index end) {
  return {ids.begin() + begin, ids.begin() + end};
}

}  // namespace

TEMPLATE_TEST_CASE("Cached decoding of ragged prompts equals the whole forward", "", Plain<D>, Parallel<D>,
                   Expanded<D>, Sublayer<D>) {
  const auto seed = GENERATE(range(1u, 4u));
  const Shape shape = random_shape(seed);
  auto model = random_model<TestType>(shape, seed);
  const std::vector<std::vector<Token>> sequences{random_tokens(9, shape.vocabulary, seed + 10),
                                                  random_tokens(9, shape.vocabulary, seed + 20),
                                                  random_tokens(9, shape.vocabulary, seed + 30)};
  std::vector<Index> lengths{3, 1, 5};
  Decoder<TestType> decoder(model, 3, 9);
  std::vector<Token> prompts;
  for (std::size_t b = 0; b < 3; ++b) {
    auto prompt = part(sequences[b], 0, lengths[b]);
    prompt.resize(5, 2);  // padding behind
    prompts.insert(prompts.end(), prompt.begin(), prompt.end());
  }
  auto logits = decoder.extend(prompts, lengths);
  for (int step = 0; step < 4; ++step) {
    CHECK(decoder.lengths() == lengths);
    std::vector<Token> next;
    for (std::size_t b = 0; b < 3; ++b) {
      CHECK(relative_difference(row(logits, b, shape), whole(model, sequences[b], lengths[b])) < 1e-12);
      next.push_back(sequences[b][static_cast<std::size_t>(lengths[b]++)]);
    }
    logits = decoder.decode(next);
  }
}

TEMPLATE_TEST_CASE("Any split of a prefill gives the same logits", "", Plain<D>, Parallel<D>, Expanded<D>,
                   Sublayer<D>) {
  const Shape shape = random_shape(6);
  auto model = random_model<TestType>(shape, 6);
  const auto ids = random_tokens(10, shape.vocabulary, 6);
  const auto expected = whole(model, ids, 10);
  const std::vector<std::vector<Index>> splits{{10}, {9, 1}, {1, 9}, {4, 3, 3}, {1, 1, 1, 7}, {2, 1, 5, 2}};
  for (const auto& split : splits) {
    Decoder<TestType> decoder(model, 1, 10);
    std::vector<D> logits;
    Index done = 0;
    for (Index length : split) {
      logits = decoder.extend(part(ids, done, done + length), {length});
      done += length;
      CHECK(relative_difference(logits, whole(model, ids, done)) < 1e-12);
    }
    CHECK(relative_difference(logits, expected) < 1e-12);
  }
}

TEMPLATE_TEST_CASE("Ragged pieces behind ragged pieces equal the whole forward", "", Plain<D>, Expanded<D>) {
  const Shape shape = random_shape(7);
  auto model = random_model<TestType>(shape, 7);
  const std::vector<std::vector<Token>> sequences{random_tokens(8, shape.vocabulary, 1),
                                                  random_tokens(8, shape.vocabulary, 2)};
  Decoder<TestType> decoder(model, 2, 8);
  std::vector<Index> done{0, 0};
  const std::vector<std::vector<Index>> pieces{{3, 1}, {1, 3}, {2, 2}};
  for (const auto& lengths : pieces) {
    const Index longest = std::max(lengths[0], lengths[1]);
    std::vector<Token> ids(static_cast<std::size_t>(2 * longest), 0);
    for (std::size_t b = 0; b < 2; ++b)
      std::copy_n(sequences[b].begin() + done[b], lengths[b], ids.begin() + static_cast<Index>(b) * longest);
    const auto logits = decoder.extend(ids, lengths);
    for (std::size_t b = 0; b < 2; ++b) {
      done[b] += lengths[b];
      CHECK(relative_difference(row(logits, b, shape), whole(model, sequences[b], done[b])) < 1e-12);
    }
  }
}

TEST_CASE("Decoding past the first key block equals the whole forward") {
  Shape shape = small_shape();
  shape.layers = 1;
  shape.cross_layers = {0};
  auto model = random_model<Expanded<D>>(shape, 8);
  const auto ids = random_tokens(300, shape.vocabulary, 8);
  Decoder<Expanded<D>> decoder(model, 1, 300);
  decoder.extend(part(ids, 0, 250), {250});
  for (Index i = 250; i < 300; ++i) {
    const auto logits = decoder.decode({ids[static_cast<std::size_t>(i)]});
    if (i % 7 == 0) CHECK(relative_difference(logits, whole(model, ids, i + 1)) < 1e-12);
  }
}

TEST_CASE("A cache that is full says so and stays as it was") {
  auto model = random_model<Plain<D>>(small_shape(), 1);
  Decoder<Plain<D>> decoder(model, 1, 3);
  decoder.extend({1, 2}, {2});
  const auto message = thrown<ConfigurationError>([&] { decoder.extend({3, 4}, {2}); });
  CHECK(contains(message, "cache is full"));
  CHECK(contains(message, "4 tokens, room for 3"));
  CHECK(decoder.lengths() == std::vector<Index>{2});
  CHECK(relative_difference(decoder.decode({3}), whole(model, {1, 2, 3}, 3)) < 1e-12);
}

TEST_CASE("Decoding refuses a token outside the vocabulary") {
  auto model = random_model<Plain<D>>(small_shape(), 1);
  Decoder<Plain<D>> decoder(model, 1, 3);
  CHECK(
      contains(thrown<InputError>([&] { decoder.extend({19}, {1}); }), "19, the vocabulary has 19 entries"));
  CHECK(contains(thrown<InputError>([&] { decoder.extend({-1}, {1}); }), "outside the vocabulary"));
}

TEST_CASE("Decoding refuses lengths that do not fit the ids") {
  auto model = random_model<Plain<D>>(small_shape(), 1);
  Decoder<Plain<D>> decoder(model, 2, 8);
  CHECK_THROWS_AS(decoder.extend({1, 2, 3, 4}, {2}), ConfigurationError);
  CHECK_THROWS_AS(decoder.extend({1, 2, 3, 4}, {2, 3}), ConfigurationError);
  CHECK_THROWS_AS(decoder.extend({1, 2, 3, 4}, {2, 0}), ConfigurationError);
  CHECK_THROWS_AS(decoder.extend({1, 2, 3}, {1, 1}), ConfigurationError);
}
