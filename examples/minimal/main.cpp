// The library in one page: a model in three lines, its loss, one training step, its continuation of a prompt.
#include <cstdio>
#include <numeric>
#include <parscale/model.hpp>
#include <parscale/train/trainer.hpp>

int main(int argc, char** argv) {
  // Structure is decided here, at compile time; sizes come from config.json, or from a Shape as below.
  constexpr parscale::Architecture arch{.head_dim = 64,
                                        .replicas = 4,
                                        .cross_attention = parscale::CrossAttention::expanded,
                                        .cross_layers = {0, 2}};
  using Model = parscale::CausalLM<arch, parscale::Cpu<float>>;

  const parscale::Shape shape{
      .layers = 4, .hidden = 128, .intermediate = 352, .heads = 2, .kv_heads = 1, .vocabulary = 512};
  auto model = argc > 1 ? Model::load(argv[1]) : Model(shape, /*seed=*/42);
  std::printf("%lld parameters\n", static_cast<long long>(model.parameters()));

  // Two sequences of 32 tokens that count upwards; the targets are the next tokens.
  std::vector<parscale::Token> ids(64);
  std::iota(ids.begin(), ids.end(), 0);
  const parscale::Batch batch = parscale::batch_of(ids, /*sequences=*/2);
  std::printf("loss %.3f before training\n", model.loss(batch));

  parscale::Trainer<Model> trainer(model, {.sequences = 2, .tokens = 32});
  for (int i = 0; i < 30; ++i) trainer.step(std::span(&batch, 1), /*learning_rate=*/3e-3);
  std::printf("loss %.3f after %lld steps\n", model.loss(batch), static_cast<long long>(trainer.steps()));

  const std::vector<parscale::Token> prompt{3, 4, 5, 6};
  for (parscale::Token token : model.generate(prompt, {.max_new_tokens = 8})) std::printf("%d ", token);
  std::printf("\n");
}
