// Goldens of both cross-replica kinds.
#include "../support/goldens.hpp"

using parscale::Architecture;
using parscale::CrossAttention;
using parscale::LayerSet;

namespace {
constexpr Architecture crossing(int head_dim, int replicas, CrossAttention kind) {
  return {.head_dim = head_dim,
          .replicas = replicas,
          .cross_attention = kind,
          .cross_layers = LayerSet::at_run_time()};
}
}  // namespace

TEST_CASE(
    "Logits, gradients, an AdamW step and greedy text equal the reference where replicas cross by expanded "
    "attention") {
  using enum CrossAttention;
  const int ran = parscale::test::run_goldens_of<crossing(8, 2, expanded), crossing(8, 3, expanded),
                                                 crossing(8, 4, expanded), crossing(128, 2, expanded)>();
  CHECK(ran > 0);
}

TEST_CASE(
    "Logits, gradients, an AdamW step and greedy text equal the reference where replicas cross by a "
    "sublayer") {
  using enum CrossAttention;
  const int ran = parscale::test::run_goldens_of<crossing(8, 4, sublayer), crossing(64, 4, sublayer)>();
  CHECK(ran > 0);
}
