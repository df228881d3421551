// The arena: what is counted without memory is what is used with it.
#include <catch2/catch_test_macros.hpp>

#include <cstdint>
#include <parscale/core/memory.hpp>
#include <vector>

#include "../support/thrown.hpp"

using parscale::Arena;
using parscale::ConfigurationError;
using parscale::View;
using parscale::test::contains;
using parscale::test::thrown;

namespace {

struct alignas(Arena::alignment) Block {
  std::byte bytes[Arena::alignment];
};

/// Takes of several types and sizes, nested as a layer's steps are; every view that was taken.
std::vector<View<double>> take_some(Arena& arena) {
  std::vector<View<double>> views{arena.take<double>({3, 5})};
  arena.take<float>({7});
  {
    Arena::Frame step(arena);
    views.push_back(arena.take<double>({100}));
    Arena::Frame inner(arena);
    views.push_back(arena.take<double>({20}));
  }
  views.push_back(arena.take<double>({2, 2}));
  return views;
}

std::size_t planned() {
  Arena plan;
  take_some(plan);
  return plan.peak();
}

}  // namespace

TEST_CASE("An arena without memory counts what the same code uses with memory") {
  std::vector<Block> memory(planned() / sizeof(Block));
  Arena arena(memory.data()->bytes, planned());
  for (const auto& view : take_some(arena)) CHECK(view);
  CHECK(arena.peak() == planned());
  Arena plan;
  for (const auto& view : take_some(plan)) CHECK_FALSE(view);
}

TEST_CASE("The peak is the sum of aligned pieces, with frames given back") {
  const auto aligned = [](std::size_t bytes) {
    return (bytes + Arena::alignment - 1) / Arena::alignment * Arena::alignment;
  };
  CHECK(planned() == aligned(3 * 5 * 8) + aligned(7 * 4) + aligned(100 * 8) + aligned(20 * 8));
}

TEST_CASE("An arena that is one byte too small says so") {
  std::vector<Block> memory(planned() / sizeof(Block));
  Arena arena(memory.data()->bytes, planned() - 1);
  CHECK(contains(thrown<ConfigurationError>([&] { take_some(arena); }), "memory plan is smaller"));
}

TEST_CASE("Pieces are aligned and do not overlap") {
  std::vector<Block> memory(64);
  Arena arena(memory.data()->bytes, 64 * sizeof(Block));
  const auto a = arena.take<char>({3});
  const auto b = arena.take<double>({9});
  const auto c = arena.take<float>({1});
  for (const void* p : {static_cast<void*>(a.data), static_cast<void*>(b.data), static_cast<void*>(c.data)})
    CHECK(reinterpret_cast<std::uintptr_t>(p) % Arena::alignment == 0);
  CHECK(reinterpret_cast<std::byte*>(b.data) >= reinterpret_cast<std::byte*>(a.data + 3));
  CHECK(reinterpret_cast<std::byte*>(c.data) >= reinterpret_cast<std::byte*>(b.data + 9));
}

TEST_CASE("A frame gives back its pieces, and the next piece takes their place") {
  std::vector<Block> memory(8);
  Arena arena(memory.data()->bytes, 8 * sizeof(Block));
  constexpr parscale::Index whole = Arena::alignment / sizeof(double);
  const double* first = nullptr;
  {
    Arena::Frame frame(arena);
    first = arena.take<double>({whole}).data;
  }
  CHECK(arena.take<double>({whole}).data == first);
  CHECK(arena.take<double>({whole}).data == first + whole);
}

TEST_CASE("A piece of no elements takes no memory") {
  Arena plan;
  plan.take<double>({});
  plan.take<double>({0, 5});
  CHECK(plan.peak() == 0);
}
