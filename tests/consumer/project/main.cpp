// A model of four replicas drawn from a seed, trained by nobody, continues a prompt.
#include <parscale/model.hpp>

#include <iostream>
#include <vector>

long long parameters_counted_elsewhere();

int main() {
  constexpr parscale::Architecture arch{.head_dim = 8, .replicas = 4};
  using Model = parscale::CausalLM<arch, parscale::Cpu<float>>;
  const parscale::Shape shape{
      .layers = 2, .hidden = 16, .intermediate = 32, .heads = 2, .kv_heads = 1, .vocabulary = 64};
  Model model(shape, /*seed=*/1);

  const std::vector<parscale::Token> prompt{3, 1, 4, 1, 5};
  const auto continuation = model.generate(prompt, {.max_new_tokens = 4});
  for (auto token : continuation) std::cout << token << ' ';
  std::cout << "from " << model.parameters() << " parameters\n";
  return continuation.size() == 4 && model.parameters() == parameters_counted_elsewhere() ? 0 : 1;
}
