#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <parscale/io/dtype_convert.hpp>
#include <random>
#include <vector>

#include "support.hpp"

using namespace parscale;
using namespace parscale::test;
using io::BFloat16;
using io::Dtype;
using io::Float16;

namespace {

/// The value of a 16-bit pattern by the book: sign, exponent, mantissa.
template <class Format>
double value_by_the_book(unsigned bits) {
  const int m = Format::mantissa_bits;
  const int exponent = static_cast<int>((bits & 0x7fff) >> m),
            mantissa = static_cast<int>(bits & ((1u << m) - 1));
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == Format::infinity >> m)
    return mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - Format::bias - m);
  return sign * std::ldexp((1 << m) + mantissa, exponent - Format::bias - m);
}

Float16 half(unsigned bits) { return {static_cast<std::uint16_t>(bits)}; }

template <class Format>
Format pattern(unsigned bits) {
  return {static_cast<std::uint16_t>(bits)};
}

template <class Format>
void check_every_pattern() {
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const double expected = value_by_the_book<Format>(bits);
    const auto as_float = static_cast<float>(pattern<Format>(bits));
    const auto as_double = static_cast<double>(pattern<Format>(bits));
    const bool sign = bits & 0x8000;
    if (std::isnan(expected)) {
      const auto back = Format::from(as_float), back2 = Format::from(as_double);
      wrong += !std::isnan(as_float) || !std::isnan(as_double) || std::signbit(as_float) != sign;
      wrong += !std::isnan(static_cast<float>(back)) || !std::isnan(static_cast<float>(back2));
      wrong += (back.bits & 0x8000) != (bits & 0x8000) || (back2.bits & 0x8000) != (bits & 0x8000);
    } else {
      wrong += static_cast<double>(as_float) != expected || as_double != expected ||
               std::signbit(as_float) != sign;
      wrong += Format::from(as_float).bits != bits || Format::from(as_double).bits != bits;
    }
  }
  CHECK(wrong == 0);
}

/// Between every two neighbours: the middle goes to the even one, a trifle beside it to the nearer one.
template <class Format>
void check_every_rounding() {
  int wrong = 0;
  for (unsigned low = 0; low < Format::infinity; ++low) {
    const unsigned high = low + 1;
    const double a = value_by_the_book<Format>(low);
    // Infinity rounds as if the next power of two stood there.
    const double b = high == Format::infinity ? 2 * a - value_by_the_book<Format>(low - 1)
                                              : value_by_the_book<Format>(high);
    const double middle = (a + b) / 2;
    const unsigned even = low % 2 == 0 ? low : high;
    for (double sign : {1.0, -1.0}) {
      const unsigned s = sign < 0 ? 0x8000 : 0;
      wrong += Format::from(sign * middle).bits != (even | s);
      wrong += Format::from(sign * std::nextafter(middle, 0)).bits != (low | s);
      wrong += Format::from(sign * std::nextafter(middle, INFINITY)).bits != (high | s);
      const auto f = static_cast<float>(middle);  // exact: both formats have fewer bits than float
      wrong += Format::from(static_cast<float>(sign) * f).bits != (even | s);
      wrong += Format::from(static_cast<float>(sign) * std::nextafter(f, 0.0f)).bits != (low | s);
      wrong += Format::from(static_cast<float>(sign) * std::nextafter(f, INFINITY)).bits != (high | s);
    }
  }
  CHECK(wrong == 0);
}

template <class T>
std::vector<std::byte> stored(Dtype dtype, const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * io::size_of(dtype));
  io::encode(dtype, std::span<const T>(values), std::span(bytes), "here");
  return bytes;
}

template <class T>
std::vector<T> loaded(Dtype dtype, std::span<const std::byte> bytes) {
  std::vector<T> values(bytes.size() / io::size_of(dtype));
  io::decode(dtype, bytes, std::span(values), "here");
  return values;
}

}  // namespace

TEST_CASE("Every dtype is found by its name and no other") {
  for (const char* name : {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8",
                           "BOOL", "F8_E4M3", "F8_E5M2"}) {
    const auto dtype = io::dtype_named(name);
    REQUIRE(dtype.has_value());
    CHECK(io::name_of(*dtype) == name);
  }
  CHECK_FALSE(io::dtype_named("f32").has_value());
  CHECK_FALSE(io::dtype_named("").has_value());
}

TEST_CASE("All 65536 F16 values are read right and come back") { check_every_pattern<Float16>(); }
TEST_CASE("All 65536 BF16 values are read right and come back") { check_every_pattern<BFloat16>(); }
TEST_CASE("F16 rounds to nearest even between all neighbours") { check_every_rounding<Float16>(); }
TEST_CASE("BF16 rounds to nearest even between all neighbours") { check_every_rounding<BFloat16>(); }

TEST_CASE("Values far outside a 16-bit format become infinity or zero of their sign") {
  CHECK(Float16::from(1e300).bits == 0x7c00);
  CHECK(Float16::from(-65520.0).bits == 0xfc00);
  CHECK(Float16::from(65519.0).bits == 0x7bff);
  CHECK(Float16::from(-1e-300).bits == 0x8000);
  CHECK(Float16::from(-5e-324).bits == 0x8000);
  CHECK(BFloat16::from(1e300).bits == 0x7f80);
  CHECK(BFloat16::from(-1e-300).bits == 0x8000);
  CHECK(BFloat16::from(-INFINITY).bits == 0xff80);
  CHECK(BFloat16::from(-0.0f).bits == 0x8000);
}

TEST_CASE("A double rounds to BF16 once, not through float") {
  // Through float this would round down to a tie, and the tie down to even.
  const double value = 1.0 + std::ldexp(1.0, -8) + std::ldexp(1.0, -40);
  CHECK(BFloat16::from(value).bits == 0x3f81);
  CHECK(BFloat16::from(static_cast<float>(value)).bits == 0x3f80);
}

TEST_CASE("BF16 from float agrees with BF16 from double on a million patterns") {
  std::mt19937 random(1);
  int wrong = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    wrong += BFloat16::from(value).bits != BFloat16::from(static_cast<double>(value)).bits;
  }
  CHECK(wrong == 0);
}

TEST_CASE("A NaN of any payload stays a NaN") {
  for (std::uint32_t payload : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0x7fc00000u}) {
    const auto nan = std::bit_cast<float>(payload);
    CHECK(std::isnan(static_cast<float>(BFloat16::from(nan))));
    CHECK(std::isnan(static_cast<float>(Float16::from(nan))));
  }
}

TEST_CASE("Numbers go into every type and come back") {
  const std::vector<std::int64_t> small = {0, 1, 1, 0};
  for (int i = 0; i <= static_cast<int>(Dtype::boolean); ++i) {
    const auto dtype = static_cast<Dtype>(i);
    INFO(io::name_of(dtype));
    const auto bytes = stored(dtype, small);
    if (dtype != Dtype::f64 && dtype != Dtype::f32 && dtype != Dtype::f16 && dtype != Dtype::bf16) {
      CHECK(loaded<std::int64_t>(dtype, bytes) == small);
      CHECK(loaded<std::int32_t>(dtype, bytes) == std::vector<std::int32_t>{0, 1, 1, 0});
    }
    CHECK(loaded<float>(dtype, bytes) == std::vector<float>{0, 1, 1, 0});
    CHECK(loaded<double>(dtype, bytes) == std::vector<double>{0, 1, 1, 0});
  }
}

TEST_CASE("Integers keep their extremes") {
  const std::vector<std::int64_t> extremes = {std::numeric_limits<std::int64_t>::min(), -1,
                                              std::numeric_limits<std::int64_t>::max()};
  CHECK(loaded<std::int64_t>(Dtype::i64, stored(Dtype::i64, extremes)) == extremes);
  CHECK(loaded<std::int64_t>(Dtype::i8, stored<std::int64_t>(Dtype::i8, {-128, 127})) ==
        std::vector<std::int64_t>{-128, 127});
  CHECK(loaded<std::int64_t>(Dtype::u16, stored<std::int32_t>(Dtype::u16, {65535})) ==
        std::vector<std::int64_t>{65535});
}

TEST_CASE("Fractions keep their values and specials as F32 and F64") {
  const std::vector<double> values = {0.1, -0.0, INFINITY, 5e-324, 1.7e308};
  CHECK(loaded<double>(Dtype::f64, stored(Dtype::f64, values)) == values);
  const auto narrow = loaded<double>(Dtype::f32, stored(Dtype::f32, values));
  CHECK(narrow == std::vector<double>{static_cast<double>(0.1f), -0.0, INFINITY, 0.0, INFINITY});
  CHECK(std::signbit(narrow[1]));
}

TEST_CASE("Elements are read at any alignment") {
  const std::vector<float> values = {1.5f, -2.25f, 1e-3f};
  for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16}) {
    const auto bytes = stored(dtype, values);
    for (std::size_t shift = 0; shift < 8; ++shift) {
      std::vector<std::byte> moved(bytes.size() + shift);
      std::copy(bytes.begin(), bytes.end(), moved.begin() + static_cast<std::ptrdiff_t>(shift));
      CHECK(loaded<double>(dtype, std::span(moved).subspan(shift)) == loaded<double>(dtype, bytes));
    }
  }
}

TEST_CASE("Fractions cannot be read as integers") {
  const auto bytes = stored<float>(Dtype::f32, {1.0f});
  CHECK_THAT(
      error_of<InputError>([&] { loaded<std::int64_t>(Dtype::f32, bytes); }),
      ContainsSubstring("Integers are needed") && ContainsSubstring("F32") && ContainsSubstring("here"));
}

TEST_CASE("An integer that does not fit is an error when it is read") {
  const std::uint64_t large = std::uint64_t{1} << 63;
  std::array<std::byte, 8> bytes{};
  std::memcpy(bytes.data(), &large, 8);
  CHECK_THAT(error_of<InputError>([&] { loaded<std::int64_t>(Dtype::u64, bytes); }),
             ContainsSubstring("out of range"));
  CHECK_THAT(error_of<InputError>([&] { loaded<std::int32_t>(Dtype::i64, bytes); }),
             ContainsSubstring("32-bit integers"));
  CHECK(loaded<double>(Dtype::u64, bytes) == std::vector<double>{9223372036854775808.0});
}

TEST_CASE("A BOOL other than 0 and 1 is an error") {
  const std::array<std::byte, 1> two = {std::byte{2}};
  CHECK_THAT(error_of<InputError>([&] { loaded<float>(Dtype::boolean, two); }), ContainsSubstring("BOOL"));
  CHECK_THAT(error_of<ConfigurationError>([&] { stored<std::int64_t>(Dtype::boolean, {2}); }),
             ContainsSubstring("BOOL"));
}

TEST_CASE("8-bit floating point is known but not read or written") {
  const std::array<std::byte, 1> one = {std::byte{1}};
  CHECK_THAT(error_of<InputError>([&] { loaded<float>(Dtype::f8_e4m3, one); }), ContainsSubstring("F8_E4M3"));
  CHECK_THAT(error_of<ConfigurationError>([&] { stored<float>(Dtype::f8_e5m2, {1}); }),
             ContainsSubstring("F8_E5M2"));
}

TEST_CASE("Fractions cannot be stored as integers, nor integers out of range") {
  CHECK_THAT(error_of<ConfigurationError>([&] { stored<float>(Dtype::i32, {1}); }),
             ContainsSubstring("cannot be stored as I32"));
  CHECK_THAT(error_of<ConfigurationError>([&] { stored<std::int64_t>(Dtype::i8, {128}); }),
             ContainsSubstring("out of range"));
  CHECK_THAT(error_of<ConfigurationError>([&] { stored<std::int64_t>(Dtype::u8, {-1}); }),
             ContainsSubstring("out of range"));
}

TEST_CASE("Known F16 patterns have their known values") {
  CHECK(static_cast<float>(half(0x3c00)) == 1.0f);
  CHECK(static_cast<float>(half(0xc000)) == -2.0f);
  CHECK(static_cast<float>(half(0x7bff)) == 65504.0f);
  CHECK(static_cast<float>(half(0x0001)) == std::ldexp(1.0f, -24));
}
