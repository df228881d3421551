// expect: parscale: head_dim must be a multiple of 8 between 8 and 256
#include <parscale/config.hpp>

constexpr parscale::Architecture arch{.head_dim = 512};
static_assert(parscale::ArchitectureRules<arch>::hold);
