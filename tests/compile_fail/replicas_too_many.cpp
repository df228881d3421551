// expect: parscale: replicas must be between 1 and 64
#include <parscale/config.hpp>

constexpr parscale::Architecture arch{.replicas = 65};
static_assert(parscale::ArchitectureRules<arch>::hold);
