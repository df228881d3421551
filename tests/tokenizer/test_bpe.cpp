// Merging, against the definition written down as plainly as possible; and the cache of words.
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <map>
#include <parscale/io/bpe.hpp>
#include <parscale/io/word_cache.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace parscale::io;
using Ids = std::vector<std::int32_t>;

namespace {

/// Random merges over the bytes a to d; ids are the bytes' values, then 256 and on.
struct RandomMerges {
  std::map<std::pair<std::int32_t, std::int32_t>, Merge> by_pair;

  explicit RandomMerges(std::mt19937& random, int count) {
    Ids tokens = {'a', 'b', 'c', 'd'};
    for (int rank = 0; rank < count; ++rank) {
      const std::int32_t left = tokens[random() % tokens.size()], right = tokens[random() % tokens.size()];
      if (!by_pair.try_emplace({left, right}, Merge{rank, 256 + rank}).second) continue;
      tokens.push_back(256 + rank);
    }
  }

  Bpe bpe() const {
    std::array<std::int32_t, 256> bytes{};
    for (std::size_t i = 0; i < 256; ++i) bytes[i] = static_cast<std::int32_t>(i);
    MergeTable table(by_pair.size());
    for (const auto& [pair, merge] : by_pair) table.insert(pair.first, pair.second, merge);
    return Bpe(bytes, std::move(table));
  }

  /// The definition: the leftmost pair of the lowest rank, until there is none.
  Ids encode(const std::string& word) const {
    Ids ids(word.begin(), word.end());
    for (;;) {
      std::size_t best = 0;
      Merge merge;
      for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto found = by_pair.find({ids[i], ids[i + 1]});
        if (found == by_pair.end() || found->second.rank >= merge.rank) continue;
        best = i;
        merge = found->second;
      }
      if (merge.rank == Merge::never) return ids;
      ids[best] = merge.id;
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
  }
};

}  // namespace

TEST_CASE("Words of every length are merged as the definition says") {
  std::mt19937 random(1);
  for (int round = 0; round < 40; ++round) {
    const RandomMerges merges(random, 60);
    const Bpe bpe = merges.bpe();
    for (std::size_t length = 1; length < 200; length += 1 + random() % 9) {
      std::string word(length, 'a');
      for (char& c : word) c = static_cast<char>('a' + random() % (round % 2 == 0 ? 4 : 2));
      Ids ids;
      bpe.encode(word, ids);
      INFO(word);
      REQUIRE(ids == merges.encode(word));
    }
  }
}

TEST_CASE("Of equal pairs the leftmost is merged first") {
  MergeTable table(1);
  table.insert('a', 'a', {0, 300});
  std::array<std::int32_t, 256> bytes{};
  bytes['a'] = 'a';
  const Bpe bpe(bytes, std::move(table));
  for (const std::size_t length : {3u, 65u, 66u}) {
    Ids ids, expected(length / 2, 300);
    if (length % 2 == 1) expected.push_back('a');
    bpe.encode(std::string(length, 'a'), ids);
    CHECK(ids == expected);
  }
}

TEST_CASE("A merge table gives what was put in, and the last merge of a pair that came twice") {
  MergeTable table(1000);
  for (std::int32_t i = 0; i < 1000; ++i) table.insert(i, 7 * i % 31, {i, i + 5000});
  table.insert(3, 21, {2000, 9000});
  for (std::int32_t i = 0; i < 1000; ++i) {
    const Merge merge = table.find(i, 7 * i % 31);
    CHECK(merge.rank == (i == 3 ? 2000 : i));
    CHECK(merge.id == (i == 3 ? 9000 : i + 5000));
  }
  CHECK(table.find(1001, 0).rank == Merge::never);
  CHECK(table.find(21, 3).rank == Merge::never);
}

TEST_CASE("A word cache remembers words, and forgets rather than mixes them up") {
  WordCache cache;
  std::mt19937 random(1);
  const auto ids_for = [](std::uint32_t seed) {
    return Ids(1 + seed % 8, static_cast<std::int32_t>(seed % 1000));
  };
  CHECK(cache.find("word").empty());
  int known = 0;
  for (int i = 0; i < 100'000; ++i) {
    const auto seed = static_cast<std::uint32_t>(random() % 30'000);
    const std::string word = std::to_string(seed * 7919) + std::string(seed % 20, 'x');
    const auto found = cache.find(word);
    if (!found.empty()) REQUIRE(Ids(found.begin(), found.end()) == ids_for(seed));
    known += found.empty() ? 0 : 1;
    cache.remember(word, ids_for(seed));
  }
  CHECK(known > 10'000);
}

TEST_CASE("A word cache leaves out what does not fit into an entry") {
  WordCache cache;
  cache.remember(std::string(31, 'x'), Ids{1});
  CHECK(cache.find(std::string(31, 'x')).empty());
  cache.remember("many", Ids(9, 1));
  CHECK(cache.find("many").empty());
  cache.remember(std::string(30, 'x'), Ids(8, 1));
  CHECK(cache.find(std::string(30, 'x')).size() == 8);
}
