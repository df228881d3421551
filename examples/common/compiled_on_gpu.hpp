/// Compiled models on a GPU. The kernels are compiled once for all architectures, by nvcc, in cuda_*.cu.
#pragma once

#include <parscale/backend/cuda/cuda.hpp>

#include "compiled_model.hpp"
#include "planned_gpu.hpp"

namespace parscale::program {

template <class S>
DeviceReport device_report(const CudaBackend<S>& on, Compute compute) {
  const cuda::Device& device = on.device();
  return {.name = device.name(),
          .memory = device.memory(),
          .in_use = device.memory_in_use(),
          .peak_flops = compute == Compute::float32 ? 0 : device.peak_flops(compute == Compute::tf32)};
}

template <Architecture arch, class B>
std::unique_ptr<AnyModel> open_on_gpu(const Shape& shape, const Placement& at, B on) {
  Ranks ranks = at.ranks;
  if (at.connect_gpus) ranks.group = at.connect_gpus(on.stream());
  return std::make_unique<CompiledModel<arch, B>>(shape, at.compute, std::move(on), ranks);
}

template <Architecture arch>
std::unique_ptr<AnyModel> open_on_gpu(const Shape& shape, const Placement& at) {
  const CudaOptions options{
      .device = at.gpu.value_or(0), .measure = at.many_steps, .tf32 = at.compute == Compute::tf32};
  if (at.compute == Compute::bfloat16) return open_on_gpu<arch>(shape, at, Cuda(options));
  return open_on_gpu<arch>(shape, at, CudaBackend<float>(options));
}

template <Architecture arch>
MemoryPlan plan_on_gpu(const Shape& shape, const PlanRequest& request) {
  const auto plan = [&]<class S>(PlannedGpu<S> on) {
    return plan_training<CausalLM<arch, CudaBackend<S>, ShardedStore>>(shape, request, on);
  };
  return request.compute == Compute::bfloat16 ? plan(PlannedGpu<BFloat16>()) : plan(PlannedGpu<float>());
}

}  // namespace parscale::program
