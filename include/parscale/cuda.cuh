/// The GPU for a .cu file: include this beside causal_lm.hpp, or model.hpp's parts.
///
///     #include <parscale/causal_lm.hpp>
///     #include <parscale/cuda.cuh>
///     constexpr parscale::Architecture arch{.head_dim = 128, .replicas = 4};
///     parscale::CausalLM<arch, parscale::Cuda> model(shape, seed);
///
/// A project of many architectures compiles the operations once, in .cu files that say
/// `template class parscale::CudaBackend<parscale::BFloat16>;`, and includes backend/cuda/cuda.hpp elsewhere.
#pragma once

#include "backend/cuda/cuda_attention.cuh"
#include "backend/cuda/cuda_attention_backward.cuh"
#include "backend/cuda/cuda_pointwise.cuh"
#include "backend/cuda/cuda_products.cuh"
#include "backend/cuda/cuda_replicas.cuh"
#include "backend/cuda/cuda_scratch.cuh"
