// The golden cases of head sizes 64 and 128 on a GPU, in float32.
#include "on_both.hpp"
#include "support/goldens.hpp"

namespace parscale::test {
namespace {

struct GpuTolerance {
  static constexpr double logits = 2e-5, gradients = 1e-4, step = 1e-3;
  static constexpr bool gradients_by_tensor = false;
};

template <Architecture... compiled>
int run_on_gpu() {
  int ran = 0;
  for (const auto& folder : golden_cases()) {
    const Architecture wanted =
        io::parse_model_config(io::read_json(folder / "config.json"), folder.string()).architecture;
    const auto run = [&]<Architecture arch>() {
      if (!(wanted == arch)) return;
      ++ran;
      INFO("case " << folder.filename().string());
      GoldenCase<CausalLM<arch, CudaBackend<float>>, GpuTolerance>(folder, CudaBackend<float>())
          .run(Keep::products);
    };
    (run.template operator()<compiled>(), ...);
  }
  return ran;
}

}  // namespace

TEST_CASE("Golden cases on a GPU") {
  PARSCALE_NEEDS_A_GPU();
  using enum CrossAttention;
  constexpr auto all = LayerSet::at_run_time();
  const int ran = run_on_gpu<
      Architecture{.head_dim = 64, .replicas = 4},
      Architecture{.head_dim = 64, .replicas = 4, .cross_attention = sublayer, .cross_layers = all},
      Architecture{.head_dim = 128, .replicas = 2, .cross_attention = expanded, .cross_layers = all},
      Architecture{.head_dim = 128, .replicas = 8}>();
  CHECK(ran >= 4);
}

}  // namespace parscale::test
