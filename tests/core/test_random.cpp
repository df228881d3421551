// Counter-based random numbers: the published vectors, and that values depend on their counter alone.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cmath>
#include <parscale/core/random.hpp>
#include <set>
#include <vector>

using parscale::normal;
using parscale::philox;
using parscale::stream_of;
using parscale::uniform;

namespace {

using Words = std::array<std::uint32_t, 4>;

/// Random123 writes counter words c0 c1 c2 c3 and key words k0 k1, lowest first.
Words from_words(const Words& c, std::uint32_t k0, std::uint32_t k1) {
  const auto pair = [](std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32 | low; };
  return philox(pair(k0, k1), pair(c[2], c[3]), pair(c[0], c[1]));
}

double mean(const std::vector<double>& values, int power) {
  double sum = 0;
  for (double v : values) sum += std::pow(v, power);
  return sum / static_cast<double>(values.size());
}

std::vector<double> normals(std::uint64_t seed, std::uint64_t stream, std::uint64_t count) {
  std::vector<double> values;
  for (std::uint64_t i = 0; i < count; ++i) values.push_back(normal(seed, stream, i));
  return values;
}

}  // namespace

TEST_CASE("Philox 4x32-10 gives the known answers of Random123") {
  CHECK(from_words({0, 0, 0, 0}, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(from_words({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffff, 0xffffffff) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(from_words({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("A stream's number is the FNV-1a hash of its name") {
  CHECK(stream_of("") == 0xcbf29ce484222325ull);
  CHECK(stream_of("a") == 0xaf63dc4c8601ec8cull);
  CHECK(stream_of("foobar") == 0x85944171f73967e8ull);
  CHECK(stream_of("\xff") != stream_of("\x7f"));
}

TEST_CASE("Uniform numbers lie inside (0, 1) and fill it evenly") {
  int tenths[10] = {};
  double low = 1, high = 0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const double u = uniform(3, 4, i);
    low = std::min(low, u);
    high = std::max(high, u);
    ++tenths[static_cast<int>(u * 10)];
  }
  CHECK(low > 0);
  CHECK(high < 1);
  for (int n : tenths) CHECK(std::abs(n - 2000) < 200);  // 4.7 standard deviations
}

TEST_CASE("Normal numbers have the moments of N(0, 1)") {
  const auto values = normals(7, stream_of("model.norm.weight"), 100000);
  CHECK(std::abs(mean(values, 1)) < 0.015);
  CHECK(std::abs(mean(values, 2) - 1) < 0.02);
  CHECK(std::abs(mean(values, 3)) < 0.05);
  CHECK(std::abs(mean(values, 4) - 3) < 0.15);
  const auto within = std::count_if(values.begin(), values.end(), [](double v) { return std::abs(v) < 1; });
  CHECK(std::abs(static_cast<double>(within) / 1e5 - 0.682689) < 0.007);
}

TEST_CASE("Neighbouring normal numbers, which share one draw, do not depend on each other") {
  const auto values = normals(11, 12, 100000);
  double product = 0, squares = 0;
  for (std::size_t i = 0; i + 1 < values.size(); i += 2) {
    product += values[i] * values[i + 1];
    squares += (values[i] * values[i] - 1) * (values[i + 1] * values[i + 1] - 1);
  }
  CHECK(std::abs(product / 5e4) < 0.02);
  CHECK(std::abs(squares / 5e4) < 0.06);
}

TEST_CASE("A random number is the same whatever was drawn before it") {
  const auto forward = normals(5, 6, 101);
  for (std::uint64_t i = 101; i-- > 0;) CHECK(normal(5, 6, i) == forward[i]);
  const double alone = uniform(5, 6, 77);
  for (std::uint64_t i = 0; i < 77; ++i) uniform(5, 6, i);
  CHECK(uniform(5, 6, 77) == alone);
}

TEST_CASE("Seeds, streams and indices give different numbers") {
  std::set<double> seen;
  for (std::uint64_t seed : {0ull, 1ull, 1ull << 32, 1ull << 63})
    for (std::uint64_t stream : {0ull, 1ull, 1ull << 32, 1ull << 63})
      for (std::uint64_t index : {0ull, 1ull, 2ull, 1ull << 32, 1ull << 63})
        seen.insert(normal(seed, stream, index));
  CHECK(seen.size() == 4 * 4 * 5);
}
