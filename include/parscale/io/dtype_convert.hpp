/// Arrays of elements between a file's bytes, which may lie at any address, and a program's numbers.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "../core/error.hpp"
#include "dtype.hpp"

namespace parscale::io {

/// The numbers that tensors are read into and written from.
template <class T>
concept TensorNumber = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, std::int32_t> ||
    std::same_as<T, std::int64_t>;

namespace detail {

/// BOOL: one byte, 0 or 1.
struct BooleanByte {
  std::uint8_t value;
};

/// Calls `f` with a value of the type that stores this dtype. False for types whose values are not
/// understood.
template <class F>
bool with_stored_type(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::f64:
      return f(double{}), true;
    case Dtype::f32:
      return f(float{}), true;
    case Dtype::f16:
      return f(Float16{}), true;
    case Dtype::bf16:
      return f(BFloat16{}), true;
    case Dtype::i64:
      return f(std::int64_t{}), true;
    case Dtype::i32:
      return f(std::int32_t{}), true;
    case Dtype::i16:
      return f(std::int16_t{}), true;
    case Dtype::i8:
      return f(std::int8_t{}), true;
    case Dtype::u64:
      return f(std::uint64_t{}), true;
    case Dtype::u32:
      return f(std::uint32_t{}), true;
    case Dtype::u16:
      return f(std::uint16_t{}), true;
    case Dtype::u8:
      return f(std::uint8_t{}), true;
    case Dtype::boolean:
      return f(BooleanByte{}), true;
    case Dtype::f8_e4m3:
    case Dtype::f8_e5m2:
      return false;
  }
  return false;
}

template <class T>
inline constexpr bool is_float16 = std::same_as<T, Float16> || std::same_as<T, BFloat16>;
template <class T>
inline constexpr bool is_fraction = std::floating_point<T> || is_float16<T>;

/// Whether every value keeps its meaning: no fractions into integers.
template <class From, class To>
inline constexpr bool is_convertible = !(is_fraction<From> && !is_fraction<To>);

/// One element into another type. False when an integer does not fit.
template <class To, class From>
bool convert(const From& from, To& to) {
  if constexpr (std::same_as<From, BooleanByte>) {
    to = static_cast<To>(from.value);
    return from.value <= 1;
  } else if constexpr (std::same_as<To, BooleanByte>) {
    to.value = static_cast<std::uint8_t>(from);
    return from == 0 || from == 1;
  } else if constexpr (std::integral<From> && std::integral<To>) {
    to = static_cast<To>(from);  // NOLINT(bugprone-signed-char-misuse): I8 is a number here
    return std::in_range<To>(from);
  } else if constexpr (std::same_as<From, float> && is_float16<To>) {
    to = To::from(from);
    return true;
  } else if constexpr (is_float16<To>) {
    to = To::from(static_cast<double>(from));
    return true;
  } else {
    to = static_cast<To>(from);
    return true;
  }
}

/// `count` elements at any address. False when an integer does not fit.
template <class To, class From>
bool convert_all(const std::byte* from, std::byte* to, std::size_t count) {
  if constexpr (std::same_as<From, To>) {
    if (count > 0) std::memcpy(to, from, count * sizeof(From));
    return true;
  } else {
    bool fits = true;
    for (std::size_t i = 0; i < count; ++i) {
      From in;
      To out;
      std::memcpy(&in, from + i * sizeof(From), sizeof(From));
      fits &= convert(in, out);
      std::memcpy(to + i * sizeof(To), &out, sizeof(To));
    }
    return fits;
  }
}

template <class T>
constexpr const char* kind_of() {
  return std::floating_point<T> ? "floating-point numbers"
         : sizeof(T) == 4       ? "32-bit integers"
                                : "64-bit integers";
}

}  // namespace detail

/// Stored elements into numbers: `bytes` holds `out.size()` elements of `dtype`, aligned or not. `where`
/// names the tensor in errors. Throws InputError: 8-bit floating point, fractions asked for as integers, an
/// integer that does not fit, a BOOL that is neither 0 nor 1.
template <TensorNumber T>
void decode(Dtype dtype, std::span<const std::byte> bytes, std::span<T> out, const std::string& where) {
  bool possible = true, fits = true;
  const bool known = detail::with_stored_type(dtype, [&]<class Stored>(Stored) {
    if constexpr (detail::is_convertible<Stored, T>) {
      auto* to = reinterpret_cast<std::byte*>(out.data());
      fits = detail::convert_all<T, Stored>(bytes.data(), to, out.size());
    } else {
      possible = false;
    }
  });
  const std::string_view type = name_of(dtype);
  if (!known)
    throw InputError({.what = concat({"The values of a tensor of type ", type, " cannot be read"}),
                      .where = where,
                      .remedy = "store it as F32, BF16 or F16"});
  if (!possible)
    throw InputError({.what = "Integers are needed here, the tensor holds fractions",
                      .where = where,
                      .why = std::string(type)});
  if (!fits)
    throw InputError({.what = "A tensor holds a value that is out of range",
                      .where = where,
                      .why = concat({type, " read as ", detail::kind_of<T>()})});
}

/// Numbers into stored elements, `bytes` holding room for `in.size()` of `dtype`. Throws ConfigurationError
/// for what the type cannot hold: fractions in an integer type, an integer out of range, 8-bit floating
/// point.
template <TensorNumber T>
void encode(Dtype dtype, std::span<const T> in, std::span<std::byte> bytes, const std::string& where) {
  bool possible = false, fits = true;
  detail::with_stored_type(dtype, [&]<class Stored>(Stored) {
    if constexpr (detail::is_convertible<T, Stored>) {
      const auto* from = reinterpret_cast<const std::byte*>(in.data());
      fits = detail::convert_all<Stored, T>(from, bytes.data(), in.size());
      possible = true;
    }
  });
  if (possible && fits) return;
  throw ConfigurationError({.what = concat({detail::kind_of<T>(), " cannot be stored as ", name_of(dtype),
                                            possible ? ": a value is out of range" : ""}),
                            .where = where});
}

}  // namespace parscale::io
