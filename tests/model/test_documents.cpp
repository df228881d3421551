// cut_documents: documents packed into one row equal the same documents by themselves.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "../support/small_model.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using D = double;

/// Documents of 1 to 5 tokens that fill one row, also by themselves.
struct Documents {
  std::vector<Batch> separate;
  Batch packed;

  Documents(const Shape& shape, std::uint64_t seed) {
    std::vector<Token> ids;
    std::vector<std::int32_t> starts;
    for (Index length : {4, 1, 5, 2, 1, 3}) {
      const auto document = random_tokens(length, shape.vocabulary, seed + ids.size());
      separate.push_back(batch_of(document, 1));
      starts.insert(starts.end(), document.size(), static_cast<std::int32_t>(ids.size()));
      ids.insert(ids.end(), document.begin(), document.end());
    }
    packed = batch_of(ids, 1, starts);
  }
};

}  // namespace

TEMPLATE_TEST_CASE("Logits of packed documents equal those of separate ones where documents are cut", "",
                   Plain<D>, Parallel<D>, Expanded<D>, Sublayer<D>) {
  const auto seed = GENERATE(range(1u, 4u));
  const Shape shape = random_shape(seed);
  auto model = random_model<TestType>(shape, seed);
  Documents documents(shape, seed);
  const auto packed = model.logits(documents.packed);
  auto position = packed.begin();
  for (const Batch& document : documents.separate) {
    const auto end = position + document.tokens * shape.vocabulary;
    CHECK(relative_difference(model.logits(document), {position, end}) < 1e-13);
    position = end;
  }
  documents.packed.starts.clear();
  CHECK(relative_difference(model.logits(documents.packed), packed) > 1e-3);
}

TEMPLATE_TEST_CASE("Gradients of packed documents equal those of separate ones where documents are cut", "",
                   Plain<D>, Parallel<D>, Expanded<D>, Sublayer<D>) {
  const auto seed = GENERATE(range(1u, 4u));
  const Shape shape = random_shape(seed);
  auto model = random_model<TestType>(shape, seed);
  const Documents documents(shape, seed);
  const auto packed = differentiate(model, documents.packed);

  auto& on = model.backend();
  model.store().zero_gradients(on);
  const double scale = 1.0 / static_cast<double>(documents.packed.counted());
  double loss = 0;
  for (const Batch& document : documents.separate) {
    typename TestType::Memory memory(shape, {1, document.tokens, Keep::everything, false}, on);
    loss += model.loss_and_gradients(document, scale, memory);
  }
  CHECK(std::abs(loss - packed.loss) < 1e-13 * loss);
  check_close(gradients_of(model), packed.gradients, 1e-12);
}

TEST_CASE("The target across a document's end does not count, nor the last of a row") {
  const Batch cut = batch_of({5, 6, 7, 8, 9, 10}, 2, {0, 0, 2, 0, 1, 1});
  CHECK(cut.targets == std::vector<Token>{6, no_target, no_target, no_target, 10, no_target});
  CHECK(cut.counted() == 2);
  const Batch whole = batch_of({5, 6, 7, 8, 9, 10}, 2);
  CHECK(whole.targets == std::vector<Token>{6, 7, no_target, 9, 10, no_target});
  CHECK(whole.counted() == 4);
}

TEST_CASE("Starts of zero cut nothing") {
  const Shape shape = small_shape();
  auto model = random_model<Expanded<D>>(shape, 2);
  Batch batch = random_batch(shape, 2, 6, 2);
  const auto logits = model.logits(batch);
  batch.starts.assign(12, 0);
  CHECK(model.logits(batch) == logits);
}

TEST_CASE("Memory that saw cut documents remembers nothing of them") {
  const Shape shape = small_shape();
  auto model = random_model<Sublayer<D>>(shape, 4);
  const Documents documents(shape, 4);
  Batch whole = documents.packed;
  whole.starts.clear();
  const auto fresh = differentiate(model, whole);
  typename Sublayer<D>::Memory memory(shape, {1, whole.tokens, Keep::layer_inputs, false}, model.backend());
  const double scale = 1.0 / static_cast<double>(whole.counted());
  model.loss_and_gradients(documents.packed, 1.0, memory);
  model.store().zero_gradients(model.backend());
  CHECK(model.loss_and_gradients(whole, scale, memory) == fresh.loss);
  CHECK(gradients_of(model) == fresh.gradients);
}

TEST_CASE("Documents in long rows are cut across tiles and key blocks") {
  Shape shape = small_shape();
  shape.layers = 1;
  auto model = random_model<Parallel<D>>(shape, 3);
  const auto a = random_tokens(280, shape.vocabulary, 1), b = random_tokens(90, shape.vocabulary, 2);
  std::vector<Token> ids = a;
  ids.insert(ids.end(), b.begin(), b.end());
  std::vector<std::int32_t> starts(370, 0);
  std::fill(starts.begin() + 280, starts.end(), 280);
  const auto packed = model.logits(batch_of(ids, 1, starts));
  const auto seam = packed.begin() + 280 * shape.vocabulary;
  CHECK(relative_difference(model.logits(batch_of(a, 1)), {packed.begin(), seam}) < 1e-13);
  CHECK(relative_difference(model.logits(batch_of(b, 1)), {seam, packed.end()}) < 1e-13);
}
