// Which GPU a run fits, by plans alone: models here are far too large to exist.
#include <catch2/catch_test_macros.hpp>

#include "common/fitting.hpp"
#include "common/model_files.hpp"
#include "support/thrown.hpp"

namespace parscale::program {
namespace {

constexpr std::size_t gib = std::size_t{1} << 30;

/// A model of `layers` layers of Qwen2-1.5B's width, P = 4; not allocated.
std::unique_ptr<AnyModel> planned(Index layers) {
  const io::ModelConfig config{.architecture = {.head_dim = 64, .replicas = 4},
                               .shape = {.layers = layers,
                                         .hidden = 1536,
                                         .intermediate = 8960,
                                         .heads = 24,
                                         .kv_heads = 4,
                                         .vocabulary = 151936,
                                         .prefix_tokens = 48}};
  return plan_model(config, {});
}

FitRequest request(Keep keep, bool choose) {
  return {.trainer = {.sequences = 4, .tokens = 2048, .keep = keep}, .choose = choose};
}

DeviceReport gpu(std::size_t memory, std::size_t in_use = 0) {
  return {.name = "a GPU", .memory = memory, .in_use = in_use};
}

std::size_t total(const AnyModel& model, Keep keep) {
  return model.plan(request(keep, false).trainer, 0).total();
}

}  // namespace

TEST_CASE("A run computes as little twice as fits its GPU") {
  const auto model = planned(28);
  std::size_t before = std::numeric_limits<std::size_t>::max();
  for (const Keep keep : {Keep::everything, Keep::products, Keep::layer_inputs}) {
    const std::size_t bytes = total(*model, keep);
    CHECK(bytes < before);
    CHECK(fitting(*model, gpu(bytes), request(Keep::everything, true)) == keep);
    CHECK(fitting(*model, gpu(bytes + gib, gib), request(Keep::everything, true)) == keep);
    before = bytes;
  }
  CHECK(fitting(*model, gpu(500 * gib), request(Keep::products, false)) == Keep::products);
}

TEST_CASE("What does not fit one of several GPUs is computed twice on all of them") {
  const auto model = planned(28);
  FitRequest shared = request(Keep::everything, true);
  int asked = 0;
  shared.everywhere = [&](bool here) { return here && ++asked == 2; };
  CHECK(fitting(*model, gpu(1000 * gib), shared) == Keep::products);
}

TEST_CASE("A run that does not fit is refused with what each option would save") {
  const auto model = planned(28);
  const std::size_t least = total(*model, Keep::layer_inputs);
  const std::string all = test::thrown<ConfigurationError>(
      [&] { fitting(*model, gpu(least - gib), request(Keep::everything, true)); });
  CHECK(all.find("does not fit the GPU") != std::string::npos);
  CHECK(all.find(bytes_text(least) + " are planned, " + bytes_text(least - gib) + " are free") !=
        std::string::npos);
  CHECK(all.find("per_device_train_batch_size=1") != std::string::npos);
  CHECK(all.find("training.trainable=prefix,aggregate") != std::string::npos);
  CHECK(all.find("2 GPUs that share the model") != std::string::npos);
  const std::string told = test::thrown<ConfigurationError>(
      [&] { fitting(*model, gpu(least + gib), request(Keep::everything, false)); });
  CHECK(told.find("training.recompute=layer: " + bytes_text(least)) != std::string::npos);
}

TEST_CASE("A model whose weights alone exceed the GPU is refused without being allocated") {
  const auto model = planned(800);
  CHECK(model->weight_bytes() > 100 * gib);
  FitRequest small = request(Keep::everything, true);
  small.trainer.sequences = 1;
  small.trainer.tokens = 128;
  const std::string text = test::thrown<ConfigurationError>([&] { fitting(*model, gpu(80 * gib), small); });
  CHECK(text.find("GiB are planned, 80.0 GiB are free") != std::string::npos);
  CHECK(text.find("(not enough)") != std::string::npos);
  CHECK(text.find("GPUs that share the model") != std::string::npos);
}

}  // namespace parscale::program
