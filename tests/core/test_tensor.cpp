// Extents and views: sizes, rows, absence, tensors seen as one.
#include <catch2/catch_test_macros.hpp>

#include <parscale/core/tensor.hpp>
#include <vector>

#include "../support/thrown.hpp"

using parscale::ConfigurationError;
using parscale::Extent;
using parscale::In;
using parscale::joined;
using parscale::View;
using parscale::test::contains;
using parscale::test::thrown;

TEST_CASE("An extent counts its elements and is a matrix of its last axis") {
  const Extent extent{4, 2, 48, 128};
  CHECK(extent.count() == 4 * 2 * 48 * 128);
  CHECK(extent.cols() == 128);
  CHECK(extent.rows() == 4 * 2 * 48);
  CHECK(extent[2] == 48);
  CHECK(to_string(extent) == "[4,2,48,128]");
}

TEST_CASE("A vector is one row") {
  CHECK(Extent{7}.rows() == 1);
  CHECK(Extent{7}.cols() == 7);
}

TEST_CASE("An extent without axes or with an axis of zero is absent") {
  CHECK(Extent{}.count() == 0);
  CHECK(Extent{}.rows() == 0);
  CHECK(Extent{}.cols() == 0);
  CHECK(to_string(Extent{}) == "[]");
  CHECK(Extent{3, 0}.count() == 0);
  CHECK(Extent{3, 0}.rows() == 0);
  CHECK(Extent{0, 3}.count() == 0);
}

TEST_CASE("Extents are equal when rank and sizes are") {
  CHECK(Extent{2, 3} == Extent{2, 3});
  CHECK(Extent{2, 3} != Extent{3, 2});
  CHECK(Extent{6} != Extent{1, 6});
  CHECK(Extent{} != Extent{0});
}

TEST_CASE("Sizes beyond 32 bits are counted right") {
  CHECK(Extent{1 << 20, 1 << 20}.count() == std::int64_t{1} << 40);
}

TEST_CASE("A view is true when it has memory and elements") {
  double memory[6] = {0, 1, 2, 3, 4, 5};
  CHECK(View<double>{memory, {2, 3}});
  CHECK_FALSE(View<double>{});
  CHECK_FALSE(View<double>{nullptr, {2, 3}});
  CHECK_FALSE(View<double>{memory, {0, 3}});
  CHECK(*View<double>{memory, {2, 3}}.row(1) == 3);
}

TEST_CASE("A writable view becomes a readable one of the same memory") {
  double memory[6] = {};
  const View<double> view{memory, {2, 3}};
  const In<double> converted = view, asked = view.readable();
  CHECK(converted.data == memory);
  CHECK(converted.extent == view.extent);
  CHECK(asked.data == memory);
  static_assert(!std::is_convertible_v<In<double>, View<double>>);
}

TEST_CASE("Tensors that lie one after the other are joined by their rows") {
  std::vector<double> memory(18);
  const View<double> q{memory.data(), {3, 3}}, k{memory.data() + 9, {1, 3}}, v{memory.data() + 12, {2, 3}};
  const View<double> all = joined(q, k, v);
  CHECK(all.data == memory.data());
  CHECK(all.extent == Extent{6, 3});
}

TEST_CASE("Biases are joined as vectors") {
  std::vector<double> memory(6);
  const View<double> q{memory.data(), {4}}, k{memory.data() + 4, {2}};
  CHECK(joined(q, k).extent == Extent{6});
}

TEST_CASE("Tensors that do not touch cannot be joined") {
  std::vector<double> memory(18);
  const View<double> q{memory.data(), {3, 3}}, k{memory.data() + 10, {1, 3}}, v{memory.data() + 12, {2, 3}};
  CHECK(contains(thrown<ConfigurationError>([&] { joined(q, k); }), "one after the other"));
  CHECK(contains(thrown<ConfigurationError>([&] { joined(q, v); }), "one after the other"));
}

TEST_CASE("Absent tensors are joined to an absent one") {
  CHECK_FALSE(joined(View<double>{}, View<double>{}, View<double>{}));
}
