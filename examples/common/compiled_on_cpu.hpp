/// Compiled models on the CPU.
#pragma once

#include <parscale/backend/cpu/cpu.hpp>

#include "compiled_model.hpp"

// The kernels are compiled once for all architectures, in cpu_kernels.cpp.
extern template class parscale::Cpu<float>;
extern template class parscale::Cpu<double>;

namespace parscale::program {

template <class T>
DeviceReport device_report(const Cpu<T>& on, Compute) {
  return {.name = std::to_string(on.threads()) + (on.threads() == 1 ? " thread" : " threads")};
}

template <Architecture arch>
std::unique_ptr<AnyModel> open_on_cpu(const Shape& shape, const Placement& at) {
  const CpuOptions options{.threads = at.threads};
  if (at.compute == Compute::float64)
    return std::make_unique<CompiledModel<arch, Cpu<double>>>(shape, at.compute, Cpu<double>(options),
                                                              at.ranks);
  return std::make_unique<CompiledModel<arch, Cpu<float>>>(shape, at.compute, Cpu<float>(options), at.ranks);
}

template <Architecture arch, class T>
MemoryPlan plan_in(const Shape& shape, const PlanRequest& request) {
  return plan_training<CausalLM<arch, Cpu<T>, ShardedStore>>(shape, request,
                                                             Cpu<T>(CpuOptions{.threads = 1}));
}

template <Architecture arch>
MemoryPlan plan_on_cpu(const Shape& shape, const PlanRequest& request) {
  return request.compute == Compute::float64 ? plan_in<arch, double>(shape, request)
                                             : plan_in<arch, float>(shape, request);
}

}  // namespace parscale::program
