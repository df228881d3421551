/// The front door: the model and the CPU backend.
///
///     #include <parscale/model.hpp>
///     constexpr parscale::Architecture arch{.head_dim = 64, .replicas = 4};
///     auto model = parscale::CausalLM<arch, parscale::Cpu<float>>::load("path/to/model");
///     auto tokens = model.generate(prompt, {.max_new_tokens = 128});
#pragma once

#include "backend/cpu/cpu.hpp"
#include "causal_lm.hpp"
#include "generate.hpp"
#include "io/huggingface.hpp"
