// expect: parscale: cross_layers may name layers 0 to 255 only
#include <parscale/config.hpp>

constexpr parscale::Architecture arch{
    .replicas = 2, .cross_attention = parscale::CrossAttention::sublayer, .cross_layers = {-1}};
static_assert(parscale::ArchitectureRules<arch>::hold);
