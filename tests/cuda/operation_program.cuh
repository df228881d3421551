/// What every test program of operations does around its tests.
#pragma once

#include <parscale/backend/cuda/device.hpp>

#include "operation_case.cuh"

namespace parscale::test {

/// PROGRAM [every N]: of all calls each Nth. 0: everything agreed; 1: something did not; 4: no GPU, skipped.
template <class Tests>
int operation_program(int count, char** words, Tests tests) {
  if (count > 2 && std::string(words[1]) == "every") Case::every = std::max(1, std::atoi(words[2]));
  if (cuda::device_count() == 0) {
    std::printf("skipped: there is no GPU\n");
    return 4;
  }
  try {
    const cuda::Device device(0);
    cuda::Stream stream;
    cuda::Scratch scratch;
    tests(device, device.launch(stream.get(), scratch));
  } catch (const std::exception& error) {
    std::printf("FAILED: %s\n", error.what());
    return 1;
  }
  std::printf("%d of %d results agree\n", Case::checks - Case::failures, Case::checks);
  return Case::failures > 0 ? 1 : 0;
}

}  // namespace parscale::test
