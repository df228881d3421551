// Goldens without crossing.
#include "../support/goldens.hpp"

using parscale::Architecture;

TEST_CASE(
    "Logits, gradients, an AdamW step and greedy text equal the reference without crossing, head size 8") {
  const int ran = parscale::test::run_goldens_of<
      Architecture{.head_dim = 8, .replicas = 1}, Architecture{.head_dim = 8, .replicas = 2},
      Architecture{.head_dim = 8, .replicas = 3}, Architecture{.head_dim = 8, .replicas = 4},
      Architecture{.head_dim = 8, .replicas = 8}>();
  CHECK(ran > 0);
}

TEST_CASE(
    "Logits, gradients, an AdamW step and greedy text equal the reference without crossing, head sizes 64 "
    "and 128") {
  const int ran = parscale::test::run_goldens_of<Architecture{.head_dim = 64, .replicas = 4},
                                                 Architecture{.head_dim = 128, .replicas = 8}>();
  CHECK(ran > 0);
}
