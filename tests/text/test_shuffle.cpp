#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <array>
#include <map>
#include <parscale/io/shuffle.hpp>
#include <set>

using namespace parscale::io;

TEST_CASE("A shuffled order holds every number once, for every size") {
  constexpr std::size_t sizes[] = {0,  1,  2,  3,   4,    5,    7,    8,    9,
                                   63, 64, 65, 100, 1000, 4095, 4096, 4097, 100000};
  for (const std::size_t size : sizes) {
    std::vector<std::size_t> order = shuffled(size, size * 31 + 5);
    std::sort(order.begin(), order.end());
    REQUIRE(order.size() == size);
    for (std::size_t i = 0; i < size; ++i) REQUIRE(order[i] == i);
  }
}

TEST_CASE("Orders are a function of size and key, the same in every version") {
  CHECK(shuffled(10, 42) == shuffled(10, 42));
  CHECK(shuffled(10, 42) != shuffled(10, 43));
  CHECK(mix(0) == 0xe220a8397b1dcdafu);  // the first output of SplitMix64 with seed 0
  CHECK(Hash().add(1).add("text").value() == 0x4557b3361dc0ad1eu);
  CHECK(shuffled(10, 42) == std::vector<std::size_t>{7, 9, 5, 8, 2, 3, 4, 6, 0, 1});
}

TEST_CASE("Every order of four comes equally often") {
  std::map<std::vector<std::size_t>, int> seen;
  constexpr int draws = 24000;
  for (std::uint64_t key = 0; key < draws; ++key) ++seen[shuffled(4, key)];
  REQUIRE(seen.size() == 24);
  double chi_square = 0;
  for (const auto& [order, count] : seen) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  CHECK(chi_square < 49.7);  // exceeded once in a thousand, 23 degrees of freedom
}

TEST_CASE("Numbers below a bound stay below it and reach both ends") {
  CHECK(below(1, ~std::uint64_t{0}) == 0);
  CHECK(below(10, 0) == 0);
  CHECK(below(10, ~std::uint64_t{0}) == 9);
  CHECK(below(std::uint64_t{1} << 32, ~std::uint64_t{0}) == 0xffffffffu);
}

TEST_CASE("Hashes tell apart what is divided differently") {
  std::set<std::uint64_t> seen;
  for (const std::uint64_t hash :
       {Hash().value(), Hash().add("").value(), Hash().add(0).value(), Hash().add("ab").add("c").value(),
        Hash().add("a").add("bc").value(), Hash().add("abc").value(), Hash().add("abcdefgh").value(),
        Hash().add("abcdefghi").value(), Hash().add(1).add(2).value(), Hash().add(2).add(1).value()})
    CHECK(seen.insert(hash).second);
}
