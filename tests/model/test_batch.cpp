// Batches: what is wrong with them is said before anything is computed.
#include "../support/small_model.hpp"
#include "../support/thrown.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

/// A valid batch of 2 x 3 for two replicas and 10 entries.
Batch valid() { return batch_of({1, 2, 3, 4, 5, 6}, 2); }

template <class E, class F>
std::string refused(F change) {
  Batch batch = valid();
  change(batch);
  return thrown<E>([&] { check(batch, 2, 10); });
}

}  // namespace

TEST_CASE("A valid batch passes, with shared and own ids, with and without targets and starts") {
  Batch batch = valid();
  CHECK_NOTHROW(check(batch, 2, 10));
  batch.ids.insert(batch.ids.end(), {1, 2, 3, 4, 5, 6});
  CHECK_NOTHROW(check(batch, 2, 10));
  batch.targets.clear();
  batch.starts = {0, 1, 1, 0, 0, 2};
  CHECK_NOTHROW(check(batch, 2, 10));
}

TEST_CASE("Tokens that do not form full rows are refused") {
  CHECK(contains(thrown<ConfigurationError>([] { batch_of({1, 2, 3}, 2); }), "3 tokens, 2 rows"));
  CHECK(contains(thrown<ConfigurationError>([] { batch_of({1, 2, 3}, 0); }), "full rows"));
  CHECK(contains(thrown<ConfigurationError>([] { batch_of({1, 2, 3}, -1); }), "full rows"));
  CHECK(contains(thrown<ConfigurationError>([] { batch_of({}, 1); }), "full rows"));
}

TEST_CASE("A batch built with a wrong number of document starts is refused") {
  CHECK_THROWS_AS(batch_of({1, 2, 3, 4}, 2, {0, 0}), ConfigurationError);
}

TEST_CASE("A batch without sequences or tokens is refused") {
  CHECK(contains(refused<ConfigurationError>([](Batch& b) { b.sequences = 0; }), "at least one sequence"));
  CHECK(contains(refused<ConfigurationError>([](Batch& b) { b.tokens = 0; }), "at least one sequence"));
  CHECK(contains(thrown<ConfigurationError>([] { check(Batch{}, 1, 10); }), "at least one sequence"));
}

TEST_CASE("A batch with a wrong number of ids is refused") {
  const auto message = refused<ConfigurationError>([](Batch& b) { b.ids.pop_back(); });
  CHECK(contains(message, "wrong number of ids"));
  CHECK(contains(message, "5 instead of 6"));
  CHECK(contains(refused<ConfigurationError>([](Batch& b) { b.ids.resize(18); }), "18 instead of 6"));
}

TEST_CASE("A token outside the vocabulary is refused with its position") {
  const auto message = refused<InputError>([](Batch& b) { b.ids[3] = 10; });
  CHECK(contains(message, "A token lies outside the vocabulary"));
  CHECK(contains(message, "position 3"));
  CHECK(contains(message, "10, the vocabulary has 10 entries"));
  CHECK(contains(refused<InputError>([](Batch& b) { b.ids[0] = -1; }), "-1, the vocabulary"));
}

TEST_CASE("A target outside the vocabulary is refused with its position") {
  CHECK(contains(refused<InputError>([](Batch& b) { b.targets[2] = 10; }), "A target lies outside"));
  CHECK(contains(refused<InputError>([](Batch& b) { b.targets[4] = -2; }), "position 4"));
}

TEST_CASE("A wrong number of targets or starts is refused") {
  CHECK(contains(refused<ConfigurationError>([](Batch& b) { b.targets.pop_back(); }), "number of targets"));
  CHECK(contains(refused<ConfigurationError>([](Batch& b) {
                   b.starts = {0, 0};
                 }),
                 "number of document starts"));
}

TEST_CASE("A document that starts after its token or before its row is refused") {
  const auto message = refused<ConfigurationError>([](Batch& b) { b.starts = {0, 0, 0, 1, 0, 0}; });
  CHECK(contains(message, "document start"));
  CHECK(contains(message, "position 3"));
  CHECK(
      contains(refused<ConfigurationError>([](Batch& b) { b.starts = {0, -1, 0, 0, 0, 0}; }), "position 1"));
}

TEST_CASE("The model refuses a bad batch in every call") {
  const Shape shape = small_shape();
  auto model = random_model<Plain<double>>(shape, 1);
  Batch bad = random_batch(shape, 2, 3, 1);
  bad.ids[1] = static_cast<Token>(shape.vocabulary);
  CHECK_THROWS_AS(model.logits(bad), InputError);
  CHECK_THROWS_AS(model.loss(bad), InputError);
  CHECK_THROWS_AS(differentiate(model, bad), InputError);
}

TEST_CASE("A batch in which no target counts has no loss") {
  const Shape shape = small_shape();
  auto model = random_model<Plain<double>>(shape, 1);
  Batch batch = random_batch(shape, 2, 1, 1);
  CHECK(contains(thrown<ConfigurationError>([&] { model.loss(batch); }), "without targets"));
  batch.targets.clear();
  CHECK(contains(thrown<ConfigurationError>([&] { differentiate(model, batch); }), "without targets"));
}

TEST_CASE("A batch that does not fit the memory planned for it is refused") {
  const Shape shape = small_shape();
  auto model = random_model<Parallel<double>>(shape, 1);
  model.store().train([](std::string_view) { return true; }, model.backend());
  Parallel<double>::Memory memory(shape, {2, 3, Keep::everything, false}, model.backend());
  const auto refuses = [&](const Batch& batch) {
    CHECK_THROWS_AS(model.loss_and_gradients(batch, 1.0, memory), ConfigurationError);
  };
  refuses(random_batch(shape, 3, 3, 1));
  refuses(random_batch(shape, 2, 4, 1));
  refuses(random_batch(shape, 1, 3, 1));
  refuses(random_batch(shape, 2, 2, 1));
  refuses(random_batch(shape, 3, 2, 1));
  Batch own = random_batch(shape, 2, 3, 1);
  own.ids.insert(own.ids.end(), own.ids.begin(), own.ids.begin() + 6);
  refuses(own);
  CHECK_NOTHROW(model.loss_and_gradients(random_batch(shape, 2, 3, 1), 1.0, memory));
}
