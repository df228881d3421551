// expect: success
#include <parscale/config.hpp>

constexpr parscale::Architecture arch{.head_dim = 64,
                                      .replicas = 4,
                                      .cross_attention = parscale::CrossAttention::expanded,
                                      .cross_layers = {0, 4, 255}};
static_assert(parscale::ArchitectureRules<arch>::hold);
