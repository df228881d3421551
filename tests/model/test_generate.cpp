// Sampling and generation.
#include <cmath>
#include <limits>
#include <map>
#include <parscale/generate.hpp>

#include "../support/small_model.hpp"
#include "../support/thrown.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using Row = std::vector<double>;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

Token drawn(const Row& logits, const GenerateOptions& options, double u) {
  return sample(std::span<const double>(logits), options, u);
}
Token greedy(const Row& logits) { return most_likely(std::span<const double>(logits)); }

/// How often each token is drawn for u spread evenly over (0, 1).
std::map<Token, double> shares(const Row& logits, const GenerateOptions& options) {
  std::map<Token, double> share;
  constexpr int draws = 10000;
  for (int i = 0; i < draws; ++i) share[drawn(logits, options, (i + 0.5) / draws)] += 1.0 / draws;
  return share;
}

const Row probabilities{std::log(0.1), std::log(0.4), std::log(0.2), std::log(0.3)};

bool near(double a, double b) { return std::abs(a - b) < 1e-3; }

std::string refused(const GenerateOptions& options) {
  return thrown<ConfigurationError>([&] { check(options); });
}

}  // namespace

TEST_CASE("Greedy takes the most likely token, of equals the first") {
  CHECK(greedy({1, 3, 2}) == 1);
  CHECK(greedy({1, 3, 3, 3}) == 1);
  CHECK(greedy({-infinity, -5, -infinity}) == 1);
  CHECK(drawn({2, 7, 7}, {.temperature = 0}, 0.999) == 1);
}

TEST_CASE("Logits that are not finite are an error wherever they stand") {
  for (const double bad : {not_a_number, infinity})
    for (std::size_t i = 0; i < 4; ++i) {
      INFO("logit " << i << " is " << bad);
      Row row{1, 2, 3, 4};
      row[i] = bad;
      CHECK(contains(thrown<NumericError>([&] { greedy(row); }), "not finite"));
      CHECK_THROWS_AS(drawn(row, {.temperature = 1}, 0.5), NumericError);
    }
  CHECK_THROWS_AS(greedy({-infinity, -infinity}), NumericError);
}

TEST_CASE("At temperature 1 tokens are drawn with their probabilities") {
  auto share = shares(probabilities, {.temperature = 1});
  CHECK(near(share[0], 0.1));
  CHECK(near(share[1], 0.4));
  CHECK(near(share[2], 0.2));
  CHECK(near(share[3], 0.3));
}

TEST_CASE("The temperature divides the logits") {
  auto share = shares(probabilities, {.temperature = 0.5});  // probabilities squared
  CHECK(near(share[1], 0.16 / 0.30));
  CHECK(near(share[0], 0.01 / 0.30));
  auto hot = shares(probabilities, {.temperature = 1e6});
  for (Token t = 0; t < 4; ++t) CHECK(near(hot[t], 0.25));
  CHECK(shares(probabilities, {.temperature = 1e-6}).size() == 1);
}

TEST_CASE("Top k keeps the k most likely tokens, of equals the first") {
  auto share = shares(probabilities, {.temperature = 1, .top_k = 2});
  CHECK(share.size() == 2);
  CHECK(near(share[1], 0.4 / 0.7));
  CHECK(near(share[3], 0.3 / 0.7));
  CHECK(shares({1, 2, 2, 2}, {.temperature = 1, .top_k = 2}).count(3) == 0);
  CHECK(shares(probabilities, {.temperature = 1, .top_k = 100}).size() == 4);
}

TEST_CASE("Top k of one is greedy at any temperature") {
  for (double u : {1e-12, 0.3, 0.9, 1 - 1e-12})
    CHECK(drawn({2, 7, 7, 1}, {.temperature = 5, .top_k = 1}, u) == 1);
}

TEST_CASE("Top p keeps the fewest tokens that reach it, at least one") {
  CHECK(shares(probabilities, {.temperature = 1, .top_p = 1e-9}).size() == 1);
  CHECK(shares(probabilities, {.temperature = 1, .top_p = 0.39}).size() == 1);
  auto share = shares(probabilities, {.temperature = 1, .top_p = 0.5});
  CHECK(share.size() == 2);
  CHECK(near(share[1], 0.4 / 0.7));
  CHECK(shares(probabilities, {.temperature = 1, .top_p = 0.75}).size() == 3);
  CHECK(shares(probabilities, {.temperature = 1, .top_p = 1}).size() == 4);
}

TEST_CASE("Top p counts the probabilities that top k left") {
  // 0.4 and 0.3 become 4/7 and 3/7: the first alone reaches one half.
  CHECK(shares(probabilities, {.temperature = 1, .top_k = 2, .top_p = 0.5}).size() == 1);
}

TEST_CASE("Tokens of probability zero are never drawn, even at the end of the range") {
  const Row row{-infinity, 0, -infinity, 0, -2000};
  for (double u : {1e-17, 0.25, 0.75, 1 - 1e-17}) {
    const Token token = drawn(row, {.temperature = 1}, u);
    CHECK((token == 1 || token == 3));
  }
}

TEST_CASE("Impossible options of generation are refused by name") {
  CHECK(contains(refused({.max_new_tokens = -1}), "max_new_tokens must not be negative"));
  CHECK(contains(refused({.temperature = -0.5}), "temperature must not be negative"));
  CHECK(contains(refused({.temperature = not_a_number}), "temperature"));
  CHECK(contains(refused({.top_k = -1}), "top_k must not be negative"));
  CHECK(contains(refused({.top_p = 0}), "top_p"));
  CHECK(contains(refused({.top_p = 1.5}), "it is 1.5"));
  CHECK(contains(refused({.top_p = not_a_number}), "top_p"));
  CHECK_NOTHROW(check(GenerateOptions{}));
}

namespace {

using Model = Parallel<double>;

Model talker() { return random_model<Model>(small_shape(), 12); }

const std::vector<std::vector<Token>> prompts{{3, 4, 5, 6}, {7}, {1, 2, 3}};

}  // namespace

TEST_CASE("Greedy generation continues with the most likely token of the whole forward") {
  auto model = talker();
  std::vector<Token> text{3, 4, 5};
  const auto continued = model.generate(text, {.max_new_tokens = 6});
  REQUIRE(continued.size() == 6);
  for (Token token : continued) {
    const auto logits = model.logits(batch_of(text, 1));
    CHECK(token == greedy({logits.end() - model.shape().vocabulary, logits.end()}));
    text.push_back(token);
  }
}

TEST_CASE("Several greedy prompts at once give what each gives alone") {
  auto model = talker();
  const auto together = model.generate(prompts, {.max_new_tokens = 8});
  REQUIRE(together.size() == 3);
  for (std::size_t b = 0; b < 3; ++b) CHECK(together[b] == model.generate(prompts[b], {.max_new_tokens = 8}));
}

TEST_CASE("The first of several sampled prompts gives what it gives alone") {
  auto model = talker();
  const GenerateOptions options{.max_new_tokens = 12, .temperature = 1, .seed = 5};
  CHECK(model.generate(prompts, options)[0] == model.generate(prompts[0], options));
}

TEST_CASE("Sampling is the same for the same seed and another for another seed") {
  auto model = talker();
  const GenerateOptions options{.max_new_tokens = 20, .temperature = 2, .seed = 5};
  const auto once = model.generate(prompts, options);
  CHECK(model.generate(prompts, options) == once);
  GenerateOptions reseeded = options;
  reseeded.seed = 6;
  CHECK(model.generate(prompts, reseeded) != once);
}

TEST_CASE("Equal prompts draw different continuations") {
  auto model = talker();
  const auto both = model.generate({{1, 2}, {1, 2}}, {.max_new_tokens = 20, .temperature = 2});
  CHECK(both[0] != both[1]);
}

TEST_CASE("Generation stops behind an end token, each prompt for itself") {
  auto model = talker();
  const auto whole = model.generate(prompts, {.max_new_tokens = 10});
  const Token end = whole[0][3];
  const auto stopped = model.generate(prompts, {.max_new_tokens = 10, .end_tokens = {99999, end}});
  for (std::size_t b = 0; b < 3; ++b) {
    auto expected = whole[b];
    const auto found = std::find(expected.begin(), expected.end(), end);
    if (found != expected.end()) expected.erase(found + 1, expected.end());
    CHECK(stopped[b] == expected);
  }
  CHECK(stopped[0].back() == end);
}

TEST_CASE("Rows of the vocabulary that the tokenizer does not know are never chosen") {
  auto model = talker();
  const Index v = model.shape().vocabulary;
  change_weights(model, [&](const std::string& name, auto& values) {
    if (name != "model.embed_tokens.weight") return;
    for (auto value = values.end() - 3 * model.shape().hidden; value != values.end(); ++value) *value *= 100;
  });
  const auto beyond = [&](const GenerateOptions& options) {
    int n = 0;
    for (const auto& text : model.generate(prompts, options))
      for (Token token : text) n += token >= v - 3 ? 1 : 0;
    return n;
  };
  CHECK(beyond({.max_new_tokens = 10}) > 0);
  CHECK(beyond({.max_new_tokens = 10, .vocabulary = v - 3}) == 0);
  CHECK(beyond({.max_new_tokens = 10, .temperature = 10, .vocabulary = v - 3}) == 0);
  CHECK(model.generate(prompts, {.max_new_tokens = 10, .vocabulary = v + 100}) ==
        model.generate(prompts, {.max_new_tokens = 10}));
}

TEST_CASE("Tokens are reported as they are chosen, in order") {
  auto model = talker();
  std::vector<std::vector<Token>> heard(3);
  const auto texts =
      model.generate(prompts, {.max_new_tokens = 5, .on_token = [&](Index prompt, Token token) {
                                 heard[static_cast<std::size_t>(prompt)].push_back(token);
                               }});
  CHECK(heard == texts);
}

TEST_CASE("No prompts or no new tokens give nothing") {
  auto model = talker();
  CHECK(model.generate(std::vector<std::vector<Token>>{}, {}).empty());
  CHECK(model.generate(prompts, {.max_new_tokens = 0}) == std::vector<std::vector<Token>>(3));
}

TEST_CASE("Generation refuses an empty prompt, impossible options and unknown tokens") {
  auto model = talker();
  CHECK(contains(thrown<ConfigurationError>([&] {
                   model.generate({{1, 2}, {}}, {});
                 }),
                 "at least one token"));
  CHECK(contains(thrown<ConfigurationError>([&] { model.generate(std::vector<Token>{}, {}); }),
                 "at least one"));
  CHECK_THROWS_AS(model.generate(prompts, {.temperature = -1}), ConfigurationError);
  CHECK(contains(thrown<InputError>([&] {
                   model.generate(std::vector<Token>{1, 19}, {});
                 }),
                 "19, the vocabulary has 19"));
  CHECK_THROWS_AS(model.generate(std::vector<Token>{-1}, {}), InputError);
}

TEST_CASE("A model with weights that are not finite cannot generate") {
  auto model = talker();
  change_weights(model, [&](const std::string& name, auto& values) {
    if (name == "model.norm.weight") values[2] = not_a_number;
  });
  CHECK(
      contains(thrown<NumericError>([&] { model.generate(prompts, {}); }), "check the checkpoint's weights"));
}
