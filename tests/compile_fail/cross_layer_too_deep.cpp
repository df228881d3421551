// expect: parscale: cross_layers may name layers 0 to 255 only
#include <parscale/config.hpp>

constexpr parscale::Architecture arch{
    .replicas = 2, .cross_attention = parscale::CrossAttention::expanded, .cross_layers = {0, 256}};
static_assert(parscale::ArchitectureRules<arch>::hold);
