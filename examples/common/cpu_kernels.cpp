// The CPU backend's kernels, which no architecture decides: compiled here for all of them.
#include <parscale/backend/cpu/cpu.hpp>

template class parscale::Cpu<float>;
template class parscale::Cpu<double>;
