/// Parts of flat arrays.
#include <catch2/catch_test_macros.hpp>

#include <parscale/distributed/partition.hpp>

using namespace parscale;
using parscale::distributed::Partition;

TEST_CASE("An even partition covers everything, in aligned parts of one size but for the last",
          "[distributed]") {
  for (const Index total : {0, 1, 5, 64, 100, 1000})
    for (int world = 1; world <= 9; ++world)
      for (const Index alignment : {1, 8, 64}) {
        const Partition parts = Partition::even(total, world, alignment);
        CHECK((parts.world() == world && parts.total() == total));
        Index end = 0;
        for (int r = 0; r < world; ++r) {
          CHECK(parts.first(r) == end);
          CHECK(parts.first(r) == std::min(total, r * parts.stride()));
          CHECK((parts.first(r) % alignment == 0 || parts.count(r) == 0));
          end += parts.count(r);
        }
        CHECK((end == total && parts.padded() == parts.stride() * world && parts.padded() >= total));
      }
  const Partition three = Partition::even(100, 3, 8);
  CHECK((three.count(0) == 40 && three.count(1) == 40 && three.count(2) == 20));
}

TEST_CASE("Parts of any sizes are consecutive; only equal ones have a stride", "[distributed]") {
  const Partition uneven({3, 0, 5});
  CHECK((uneven.first(1) == 3 && uneven.count(1) == 0 && uneven.first(2) == 3 && uneven.largest() == 5));
  CHECK((uneven.stride() == 0 && uneven.padded() == 8));
  CHECK(Partition({4, 4, 4}).stride() == 4);
  CHECK_THROWS_AS(Partition({1, -1}), ConfigurationError);
  CHECK_THROWS_AS(Partition::even(10, 0), ConfigurationError);
}
