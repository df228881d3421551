// expect: parscale: cross_layers needs cross_attention = CrossAttention::expanded or ::sublayer
#include <parscale/config.hpp>

constexpr parscale::Architecture arch{.replicas = 4, .cross_layers = {0, 4}};
static_assert(parscale::ArchitectureRules<arch>::hold);
