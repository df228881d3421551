/// Included first into every file of the rooms that run models: the CPU backend's kernels are compiled once,
/// as in the programs (examples/common/cpu_kernels.cpp), and not again with every model.
#pragma once

#include <parscale/backend/cpu/cpu.hpp>

extern template class parscale::Cpu<float>;
extern template class parscale::Cpu<double>;
