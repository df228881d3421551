// The same model in another translation unit.
#include <parscale/io/tokenizer.hpp>
#include <parscale/model.hpp>

long long parameters_counted_elsewhere() {
  constexpr parscale::Architecture arch{.head_dim = 8, .replicas = 4};
  const parscale::Shape shape{
      .layers = 2, .hidden = 16, .intermediate = 32, .heads = 2, .kv_heads = 1, .vocabulary = 64};
  return parscale::CausalLM<arch, parscale::Cpu<float>>(shape, /*seed=*/2).parameters();
}
