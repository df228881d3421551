/// What a model asks a backend for, against what its plan says.
#pragma once

#include <cstddef>
#include <parscale/backend/cpu/cpu.hpp>

namespace parscale::test {

/// The CPU, counting the bytes that are asked for.
class CountingCpu : public Cpu<double> {
 public:
  CountingCpu() : Cpu<double>(CpuOptions{.threads = 1}) {}
  Buffer allocate(std::size_t bytes) {
    asked += bytes;
    return Cpu<double>::allocate(bytes);
  }
  std::size_t asked = 0;
};

}  // namespace parscale::test
