#include <algorithm>
#include <catch2/generators/catch_generators.hpp>
#include <map>
#include <numeric>
#include <parscale/io/dataset.hpp>
#include <set>

#include "corpus.hpp"

using namespace parscale;
using namespace parscale::io;
using namespace parscale::test;

namespace {

/// Ten files of ten documents of 99 bytes each, so of 100 tokens with the end token: 10,000 tokens. Tokens
/// tell where they come from: each document is written in one letter, of which there are 100.
struct TenFiles {
  TemporaryDirectory in;
  ByteEncoder encoder = {};

  TenFiles() {
    for (int file = 0; file < 10; ++file) {
      std::string lines;
      for (int line = 0; line < 10; ++line) {
        std::string letter;
        append_utf8(static_cast<char32_t>(0x100 + file * 10 + line), letter);
        lines += "{\"text\":\"";
        for (int i = 0; i < 99; ++i) lines += letter;
        lines += "\"}\n";
      }
      in.file("data/" + std::to_string(file) + ".jsonl", lines);
    }
  }

  /// A token a character: its number of document; 1000 at the end.
  TextEncoder by_character() const {
    const auto encode = [count = encoder.count](std::string_view text) {
      ++count->calls;
      std::vector<std::int32_t> ids;
      for (std::size_t at = 0; at < text.size();) {
        const Character c = character_at(text, at);
        ids.push_back(static_cast<std::int32_t>(c.code_point) - 0x100);
        at += c.length;
      }
      return ids;
    };
    return {.encode = encode, .fingerprint = 1, .end_token = 1000};
  }

  Dataset dataset(Index max_length, std::uint64_t seed = 42) const {
    DatasetOptions options = options_for(in, "data", max_length);
    options.seed = seed;
    return Dataset(options, by_character());
  }
};

std::map<std::int32_t, int> counts(const std::vector<Row>& rows) {
  std::map<std::int32_t, int> out;
  for (const Row& row : rows)
    for (const std::int32_t id : row.ids) ++out[id];
  return out;
}

/// Documents in the order in which they come, without repetitions in a row.
std::vector<std::int32_t> sequence(const std::vector<Row>& rows) {
  std::vector<std::int32_t> out;
  for (const Row& row : rows)
    for (const std::int32_t id : row.ids)
      if (id != 1000 && (out.empty() || out.back() != id)) out.push_back(id);
  return out;
}

}  // namespace

TEST_CASE("An epoch holds every token of the data once") {
  const TenFiles files;
  const Index length = GENERATE(50, 2);  // in one window of 4096 rows, and in two
  const Dataset data = files.dataset(length);
  for (Index epoch = 0; epoch < 3; ++epoch) {
    const Index rows_of_epoch = 10000 / length;
    const auto count = counts(rows(data, epoch * rows_of_epoch, (epoch + 1) * rows_of_epoch));
    REQUIRE(count.size() == 101);
    for (const auto& [id, times] : count) CHECK(times == (id == 1000 ? 100 : 99));
    CHECK(data.report().rows_per_epoch == rows_of_epoch);
  }
}

TEST_CASE("Rows are the documents of a file one after the other, cut every max_length tokens") {
  const TemporaryDirectory in;
  in.file("a.jsonl", "{\"text\":\"abc\"}\n{\"text\":\"defgh\"}\n{\"text\":\"i\"}\n");
  const Dataset data(options_for(in, "a.jsonl", 4), ByteEncoder());
  std::vector<Row> all = rows(data, 0, 3);
  std::sort(all.begin(), all.end(), [](const Row& a, const Row& b) { return a.ids < b.ids; });
  CHECK(all[0].ids == std::vector<std::int32_t>{'a', 'b', 'c', 1000});
  CHECK(all[0].starts == std::vector<std::int32_t>{0, 0, 0, 0});
  CHECK(all[1].ids == std::vector<std::int32_t>{'d', 'e', 'f', 'g'});
  CHECK(all[2].ids == std::vector<std::int32_t>{'h', 1000, 'i', 1000});
  CHECK(all[2].starts == std::vector<std::int32_t>{0, 0, 2, 2});
}

TEST_CASE("Starts point to the first token of each token's document") {
  const TenFiles files;
  for (const Index length : {7, 50, 130, 1000})
    for (const Row& row : rows(files.dataset(length), 0, 2 * (10000 / length)))
      for (std::size_t i = 0; i < row.ids.size(); ++i) {
        const bool first = i == 0 || row.ids[i - 1] == 1000;
        REQUIRE(row.starts[i] == (first ? static_cast<std::int32_t>(i) : row.starts[i - 1]));
      }
}

TEST_CASE("A row is the same in whatever order rows are asked for") {
  const TenFiles files;
  const Dataset forward = files.dataset(7), backward = files.dataset(7);
  std::vector<Row> there = rows(forward, 0, 3000), back(3000);
  for (Index j = 2999; j >= 0; --j) back[static_cast<std::size_t>(j)] = backward.row(j);
  CHECK(there == back);
  CHECK(files.dataset(7).row(2500) == there[2500]);
}

TEST_CASE("Epochs hold the same tokens in another order") {
  const TenFiles files;
  const Dataset data = files.dataset(100);
  const std::vector<Row> first = rows(data, 0, 100), second = rows(data, 100, 200),
                         third = rows(data, 200, 300);
  CHECK(counts(first) == counts(second));
  CHECK(sequence(first) != sequence(second));
  CHECK(sequence(second) != sequence(third));
}

TEST_CASE("Every epoch takes the files in another order") {
  const TenFiles files;
  const Dataset data = files.dataset(10000);  // a row is an epoch, so nothing else is shuffled
  CHECK(sequence({data.row(0)}) != sequence({data.row(1)}));
  CHECK(sequence({data.row(1)}) != sequence({data.row(2)}));
}

TEST_CASE("Rows are shuffled inside windows, in another way in each window and epoch") {
  const TemporaryDirectory in;
  in.file("a.txt", std::string(3 * 4096 * 2, 'x'));
  const auto encode = [](std::string_view text) {  // both tokens of a row are its number
    std::vector<std::int32_t> ids(text.size());
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i / 2);
    return ids;
  };
  const Dataset data(options_for(in, "a.txt", 2), {.encode = encode});
  std::set<std::vector<std::int32_t>> orders;
  for (std::int32_t window = 0; window < 6; ++window) {
    std::vector<std::int32_t> order;
    for (const Row& row : rows(data, window * 4096, (window + 1) * 4096))
      order.push_back(row.ids[0] - window % 3 * 4096);
    CHECK(orders.insert(order).second);
    CHECK_FALSE(std::is_sorted(order.begin(), order.end()));
    std::sort(order.begin(), order.end());
    for (std::int32_t i = 0; i < 4096; ++i) REQUIRE(order[static_cast<std::size_t>(i)] == i);
  }
}

TEST_CASE("Seeds give other orders of the same tokens") {
  const TenFiles files;
  const std::vector<Row> one = rows(files.dataset(100, 1), 0, 100), two = rows(files.dataset(100, 2), 0, 100);
  CHECK(counts(one) == counts(two));
  CHECK(sequence(one) != sequence(two));
}

TEST_CASE("The last, partial row of an epoch is left out") {
  const TenFiles files;
  const Dataset data = files.dataset(3001);
  rows(data, 0, 6);
  CHECK(data.report().rows_per_epoch == 3);
  CHECK(data.report().epochs(6) == 2.0);
  CHECK(rows(data, 0, 3) != rows(data, 3, 6));
}

TEST_CASE("Files are tokenised only as far as the window of a row reaches") {
  const TemporaryDirectory in;
  std::mt19937_64 random(8);
  for (int i = 0; i < 20; ++i) in.file("data/" + std::to_string(i) + ".txt", letters(random, 9999));
  const ByteEncoder encoder;
  const Dataset data(options_for(in, "data", 8), encoder);
  CHECK(encoder.count->calls == 0);
  data.row(0);  // a window is 4096 rows of 8 tokens: 32,768 tokens, four files
  CHECK(encoder.count->calls == 4);
  data.row(4095);
  CHECK(encoder.count->calls == 4);
  data.row(4096);
  CHECK(encoder.count->calls == 7);
  CHECK(data.report().files == 20);
  CHECK(data.report().files_seen == 7);
  CHECK(data.report().tokens == 70000);
  CHECK(data.report().documents == 7);
  CHECK_FALSE(data.report().rows_per_epoch.has_value());
  CHECK_FALSE(data.report().epochs(10).has_value());
  data.row(24999);
  CHECK(encoder.count->calls == 20);
  data.row(70000);
  CHECK(encoder.count->calls == 20);
  CHECK(data.report().rows_per_epoch == 25000);
}

TEST_CASE("A file larger than a window is tokenised only as far as the window reaches") {
  const TemporaryDirectory in;
  std::mt19937_64 random(9);
  const auto lines = jsonl(random, 2000, 200);
  in.file("a.jsonl", lines);
  const ByteEncoder encoder;
  DatasetOptions options = options_for(in, "a.jsonl", 8);
  options.cache.part_bytes = 1000;
  Dataset(options, encoder).row(0);
  CHECK(encoder.count->bytes < 34000);
  CHECK(encoder.count->bytes > 30000);
}

TEST_CASE("Neither parts nor packing nor the cache change rows") {
  const TemporaryDirectory in;
  std::mt19937_64 random(10);
  for (const char* name : {"a.jsonl", "b.jsonl", "c.jsonl"}) {
    const std::string lines = jsonl(random, 400, 300);
    in.file(std::string("plain/") + name, lines);
    in.file(std::string("gz/") + name + ".gz", gzip(lines));
    in.file(std::string("zst/") + name + ".zst", zstd(lines));
  }
  for (const double eval_fraction : {0.0, 0.1}) {
    const auto with = [&](const std::string& folder, std::uint64_t part_bytes, bool cached) {
      DatasetOptions options = options_for(in, folder, 32);
      options.eval_fraction = eval_fraction;
      options.cache.part_bytes = part_bytes;
      if (!cached) options.cache.folder.clear();
      const Dataset data(options, ByteEncoder());
      std::vector<Row> out = rows(data, 0, 7000);
      for (Index k = 0; k < data.evaluation_rows(); ++k) out.push_back(data.evaluation_row(k));
      return out;
    };
    const std::vector<Row> plain = with("plain", 1 << 24, true);
    CHECK((with("plain", 1 << 24, true) == plain));
    CHECK((with("plain", 1 << 24, false) == plain));
    CHECK((with("gz", 1 << 24, true) == plain));
    CHECK((with("zst", 1 << 24, true) == plain));
    if (eval_fraction > 0) continue;  // what is held out is decided part by part
    CHECK((with("plain", 50000, true) == plain));
    CHECK((with("gz", 50000, true) == plain));
  }
}

TEST_CASE("Data moved to another folder gives the same rows") {
  const TenFiles files;
  std::filesystem::create_directory(files.in / "moved");
  std::filesystem::copy(files.in / "data", files.in / "moved/data");
  const Dataset here(options_for(files.in, "data", 64), files.by_character());
  const Dataset there(options_for(files.in, "moved/data/*.jsonl", 64), files.by_character());
  CHECK(rows(here, 0, 300) == rows(there, 0, 300));
}

TEST_CASE("One document of one line is data enough") {
  const TemporaryDirectory in;
  in.file("a.jsonl", "{\"text\":\"abcdefg\"}");
  const Dataset data(options_for(in, "a.jsonl", 8), ByteEncoder());
  CHECK(data.row(0) == data.row(1000));
  CHECK(data.report().rows_per_epoch == 1);
}

TEST_CASE("Empty files among others are left out") {
  const TemporaryDirectory in;
  in.file("d/a.txt", "");
  in.file("d/b.txt", "abcdefg");
  in.file("d/c.jsonl", "\n");
  const Dataset data(options_for(in, "d", 8), ByteEncoder());
  CHECK(data.row(3).ids.back() == 1000);
  CHECK(data.report().files_seen == 3);
  CHECK(data.report().documents == 1);
}

TEST_CASE("Data of less than a row is an error that says which max_length would do") {
  const TemporaryDirectory in;
  in.file("a.txt", "abcdefg");
  const Dataset data(options_for(in, "a.txt", 9), ByteEncoder());
  for (int attempt = 0; attempt < 2; ++attempt) {
    const std::string message = error_of<ConfigurationError>([&] { data.row(0); });
    CHECK_THAT(message, ContainsSubstring("8 tokens"));
    CHECK_THAT(message, ContainsSubstring("max_length=8"));
  }
}

TEST_CASE("Data without any text is an error") {
  const TemporaryDirectory in;
  in.file("a.txt", "");
  const Dataset data(options_for(in, "a.txt", 8), ByteEncoder());
  CHECK_THAT(error_of<ConfigurationError>([&] { data.row(0); }), ContainsSubstring("holds no text"));
}

TEST_CASE("A file that changes during the run is an error") {
  const TenFiles files;
  const Dataset data = files.dataset(100);
  rows(data, 0, 100);
  files.in.file("data/3.jsonl", "{\"text\":\"" + std::string(999, 'x') + "\"}\n");
  CHECK_THAT(error_of<InputError>([&] { data.row(100); }), ContainsSubstring("changed while it was in use"));
}

TEST_CASE("Impossible options are errors") {
  const TemporaryDirectory in;
  in.file("a.txt", "abc");
  const auto message = [&](auto change) {
    DatasetOptions options = options_for(in, "a.txt", 8);
    change(options);
    return error_of<ConfigurationError>([&] { Dataset(options, ByteEncoder()); });
  };
  CHECK_THAT(message([](auto& o) { o.max_length = 1; }), ContainsSubstring("it is 1"));
  CHECK_THAT(message([](auto& o) { o.max_length = Index{1} << 40; }), ContainsSubstring("max_length"));
  CHECK_THAT(message([](auto& o) { o.eval_fraction = 1; }), ContainsSubstring("eval_fraction"));
  CHECK_THAT(message([](auto& o) { o.eval_fraction = -0.1; }), ContainsSubstring("eval_fraction"));
  CHECK_THAT(message([](auto& o) { o.eval_fraction = std::nan(""); }), ContainsSubstring("eval_fraction"));
  CHECK_THAT(message([](auto& o) { o.max_evaluation_rows = -1; }), ContainsSubstring("max_evaluation_rows"));
  CHECK_THAT(message([](auto& o) { o.sources.clear(); }), ContainsSubstring("training.dataset"));
}

TEST_CASE("Rows that do not exist are errors") {
  const TenFiles files;
  const Dataset data = files.dataset(100);
  CHECK_THAT(error_of<ConfigurationError>([&] { data.row(-1); }), ContainsSubstring("row -1"));
  CHECK_THAT(error_of<ConfigurationError>([&] { data.row(std::numeric_limits<Index>::max()); }),
             ContainsSubstring("no such row"));
  CHECK_THAT(error_of<ConfigurationError>([&] { data.evaluation_row(0); }), ContainsSubstring("row 0 of 0"));
}

TEST_CASE("The fingerprint of a data set changes with what its rows are made of") {
  const TenFiles files;
  const auto fingerprint = [&](auto change) {
    DatasetOptions options = options_for(files.in, "data", 64);
    TextEncoder encoder = files.by_character();
    change(options, encoder);
    return Dataset(options, encoder).fingerprint();
  };
  std::set<std::uint64_t> seen;
  const auto nothing = [](DatasetOptions&, TextEncoder&) {};
  seen.insert(fingerprint(nothing));
  CHECK_FALSE(seen.insert(fingerprint(nothing)).second);
  CHECK(seen.insert(fingerprint([](DatasetOptions& o, TextEncoder&) { o.seed = 1; })).second);
  CHECK(seen.insert(fingerprint([](DatasetOptions& o, TextEncoder&) { o.max_length = 65; })).second);
  CHECK(seen.insert(fingerprint([](DatasetOptions& o, TextEncoder&) { o.eval_fraction = 0.25; })).second);
  CHECK(seen.insert(fingerprint([](DatasetOptions& o, TextEncoder&) { o.cache.text_field = "t"; })).second);
  CHECK(seen.insert(fingerprint([](DatasetOptions&, TextEncoder& e) { e.fingerprint = 9; })).second);
  CHECK(seen.insert(fingerprint([](DatasetOptions&, TextEncoder& e) { e.end_token = 9; })).second);
  files.in.file("data/3.jsonl", "{\"text\":\"x\"}\n");
  CHECK(seen.insert(fingerprint(nothing)).second);
}
