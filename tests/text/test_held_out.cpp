#include <algorithm>
#include <parscale/io/dataset.hpp>
#include <set>

#include "corpus.hpp"

using namespace parscale;
using namespace parscale::io;
using namespace parscale::test;

namespace {

/// Each character of the made-up texts here is another one, so a token is seen on one side or on the other.
class DistinctText {
 public:
  std::string text(std::size_t length) {
    std::string out;
    for (std::size_t i = 0; i < length; ++i) append_utf8(static_cast<char32_t>(0x10000 + next_++), out);
    return out;
  }
  std::string jsonl(std::size_t documents, std::size_t length) {
    std::string out;
    for (std::size_t i = 0; i < documents; ++i) out += "{\"text\":\"" + text(length) + "\"}\n";
    return out;
  }
  std::size_t used() const { return next_; }

 private:
  std::size_t next_ = 0;
};

/// A token a character; no end token, so that all tokens of a data set differ.
TextEncoder character_encoder() {
  const auto encode = [](std::string_view text) {
    std::vector<std::int32_t> ids;
    for (std::size_t at = 0; at < text.size();) {
      const Character c = character_at(text, at);
      ids.push_back(static_cast<std::int32_t>(c.code_point) - 0x10000);
      at += c.length;
    }
    return ids;
  };
  return {.encode = encode, .fingerprint = 1};
}

struct Sides {
  std::set<std::int32_t> training, evaluation;
};

/// The tokens of both sides; every token of an epoch must come once.
Sides sides_of(const Dataset& data) {
  Sides sides;
  data.row(0);
  for (Index j = 0; !data.report().rows_per_epoch || j < *data.report().rows_per_epoch; ++j)
    for (const std::int32_t id : data.row(j).ids) REQUIRE(sides.training.insert(id).second);
  for (Index k = 0; k < data.evaluation_rows(); ++k)
    for (const std::int32_t id : data.evaluation_row(k).ids) REQUIRE(sides.evaluation.insert(id).second);
  return sides;
}

void check_disjoint(const Sides& sides) {
  for (const std::int32_t id : sides.evaluation) REQUIRE(sides.training.count(id) == 0);
}

DatasetOptions held_out_options(const TemporaryDirectory& in, const std::string& source, double fraction) {
  DatasetOptions options = options_for(in, source, 4);
  options.eval_fraction = fraction;
  options.max_evaluation_rows = 1 << 20;
  return options;
}

double share(const Sides& sides) {
  const auto held_out = static_cast<double>(sides.evaluation.size());
  return held_out / (held_out + static_cast<double>(sides.training.size()));
}

}  // namespace

TEST_CASE("Held-out text is never trained on, whatever the data look like") {
  for (std::uint64_t round = 0; round < 25; ++round) {
    std::mt19937_64 random(round);
    const TemporaryDirectory in;
    DistinctText made;
    const std::size_t files = 1 + random() % 6;
    for (std::size_t i = 0; i < files; ++i) {
      const std::string name = "data/" + std::to_string(i);
      if (random() % 2 == 0)
        in.file(name + ".txt", made.text(random() % 2000));
      else
        in.file(name + ".jsonl", made.jsonl(random() % 200, 1 + random() % 20));
    }
    in.file("data/more.txt", made.text(500));
    DatasetOptions options = held_out_options(in, "data", static_cast<double>(random() % 50) / 100);
    options.cache.part_bytes = 1 + random() % 5000;
    const Dataset data(options, character_encoder());
    const Sides sides = sides_of(data);
    check_disjoint(sides);
    // Nothing is lost but the partial row at the end of each side.
    REQUIRE(sides.training.size() + sides.evaluation.size() + 6 >= made.used());
  }
}

TEST_CASE("Of many documents whole ones are held out, about the fraction asked for") {
  const TemporaryDirectory in;
  DistinctText made;
  in.file("a.jsonl", made.jsonl(2000, 8));
  const Sides sides = sides_of(Dataset(held_out_options(in, "a.jsonl", 0.1), character_encoder()));
  check_disjoint(sides);
  CHECK(share(sides) > 0.07);
  CHECK(share(sides) < 0.13);
  for (const std::int32_t id : sides.evaluation) REQUIRE(sides.training.count(id / 8 * 8) == 0);
}

TEST_CASE("Which documents of a file are held out does not depend on the parts that it comes in") {
  const TemporaryDirectory in;
  DistinctText made;
  in.file("a.jsonl", made.jsonl(2000, 8));
  DatasetOptions options = held_out_options(in, "a.jsonl", 0.1);
  const Sides whole = sides_of(Dataset(options, character_encoder()));
  options.cache.part_bytes = 16000;
  const Sides parts = sides_of(Dataset(options, character_encoder()));
  CHECK(whole.evaluation == parts.evaluation);
  CHECK(whole.training == parts.training);
}

TEST_CASE("Of many files whole ones are held out, also when all have the same name") {
  const TemporaryDirectory in;
  DistinctText made;
  for (int i = 0; i < 300; ++i) in.file("data/" + std::to_string(1000 + i) + "/text.txt", made.text(8));
  const Sides sides = sides_of(Dataset(held_out_options(in, "data", 0.1), character_encoder()));
  check_disjoint(sides);
  CHECK(share(sides) > 0.04);
  CHECK(share(sides) < 0.18);
  for (const std::int32_t id : sides.evaluation) REQUIRE(sides.training.count(id / 8 * 8) == 0);
}

TEST_CASE("Of one large document the last tokens are held out") {
  const TemporaryDirectory in;
  DistinctText made;
  in.file("novel.txt", made.text(4000));
  const Sides sides = sides_of(Dataset(held_out_options(in, "novel.txt", 0.05), character_encoder()));
  CHECK(sides.training.size() == 3800);
  CHECK(*sides.training.rbegin() == 3799);
  CHECK(*sides.evaluation.begin() == 3800);
  CHECK(sides.evaluation.size() == 200);
}

TEST_CASE("Held-out rows are the same for every seed, in the order of the text") {
  const TemporaryDirectory in;
  DistinctText made;
  for (const char* name : {"d/a.jsonl", "d/b.jsonl", "d/c.txt"})
    in.file(name, std::string(name).back() == 't' ? made.text(3000) : made.jsonl(300, 10));
  std::vector<std::vector<Row>> of_seed;
  for (const std::uint64_t seed : {1u, 2u}) {
    DatasetOptions options = held_out_options(in, "d", 0.1);
    options.seed = seed;
    const Dataset data(options, character_encoder());
    of_seed.emplace_back();
    for (Index k = 0; k < data.evaluation_rows(); ++k) of_seed.back().push_back(data.evaluation_row(k));
    CHECK(std::is_sorted(of_seed.back().begin(), of_seed.back().end(),
                         [](const Row& a, const Row& b) { return a.ids < b.ids; }));
  }
  CHECK(of_seed[0].size() > 100);
  CHECK(of_seed[0] == of_seed[1]);
}

TEST_CASE("Evaluation tokenises no further than its rows need") {
  const TemporaryDirectory in;
  std::mt19937_64 random(11);
  for (int i = 0; i < 20; ++i) in.file("data/" + std::to_string(10 + i) + ".txt", letters(random, 9999));
  const ByteEncoder encoder;
  DatasetOptions options = options_for(in, "data", 8);
  options.eval_fraction = 0.1;
  options.max_evaluation_rows = 200;  // 1,600 tokens: the tails of two files
  const Dataset data(options, encoder);
  CHECK(data.evaluation_rows() == 200);
  CHECK(encoder.count->calls == 2);
}

TEST_CASE("Without eval_fraction nothing is held out and nothing read for it") {
  const TemporaryDirectory in;
  in.file("a.txt", std::string(1000, 'x'));
  const ByteEncoder encoder;
  const Dataset data(options_for(in, "a.txt", 8), encoder);
  CHECK(data.evaluation_rows() == 0);
  CHECK(encoder.count->calls == 0);
}

TEST_CASE("Held-out text of less than a row gives no evaluation rows") {
  const TemporaryDirectory in;
  in.file("a.txt", std::string(99, 'x'));
  DatasetOptions options = options_for(in, "a.txt", 8);
  options.eval_fraction = 0.07;
  CHECK(Dataset(options, ByteEncoder()).evaluation_rows() == 0);
  options.eval_fraction = 0.08;
  CHECK(Dataset(options, ByteEncoder()).evaluation_rows() == 1);
}

TEST_CASE("Separate evaluation data are used whole, and all of the training data trains") {
  const TemporaryDirectory in;
  DistinctText made;
  in.file("train.jsonl", made.jsonl(500, 8));
  in.file("test/a.jsonl", made.jsonl(300, 8));
  in.file("test/b.txt", made.text(400));
  DatasetOptions options = held_out_options(in, "train.jsonl", 0.5);
  options.evaluation_sources = {(in / "test").string()};
  const Sides sides = sides_of(Dataset(options, character_encoder()));
  CHECK(sides.training.size() == 4000);
  CHECK(sides.evaluation.size() == 2800);
  CHECK(*sides.training.rbegin() == 3999);
}

TEST_CASE("Missing evaluation data are an error") {
  const TemporaryDirectory in;
  in.file("train.txt", "abc");
  DatasetOptions options = options_for(in, "train.txt", 8);
  options.evaluation_sources = {(in / "missing.txt").string()};
  CHECK_THAT(error_of<InputError>([&] { Dataset(options, ByteEncoder()); }),
             ContainsSubstring("missing.txt"));
}
