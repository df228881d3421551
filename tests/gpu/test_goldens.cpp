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
      GoldenCase<CausalLM<arch, CudaBackend<float>>, GpuTolerance>(folder, backend<CudaBackend<float>>())
          .run(Keep::products);
    };
    (run.template operator()<compiled>(), ...);
  }
  return ran;
}

/// bfloat16 against the goldens, and against how far PyTorch's bfloat16 lies from them
/// (make_bfloat16_errors.py).
template <Architecture arch>
void compare_bfloat16(const char* name) {
  const auto folder = goldens() / name;
  INFO("case " << name);
  const io::Json peer = io::read_json(folder / "bfloat16.json");
  const io::SafetensorsFile expected(folder / "expected.safetensors");
  const auto ids = read<std::int64_t>(expected, "input_ids");
  const auto tokens = expected.find("input_ids")->shape[1];
  const Batch batch = batch_of({ids.begin(), ids.end()}, static_cast<Index>(ids.size()) / tokens);
  auto model = CausalLM<arch, Cuda>::load(folder, backend<Cuda>());
  const Results is = results_of(model, batch, Keep::products);
  Results should;
  for (const auto& info : expected.tensors())
    if (info.name.starts_with("grad.")) {
      const auto values = read<float>(expected, info.name);
      should.gradients[info.name.substr(5)].assign(values.begin(), values.end());
    }
  const auto logits = read<float>(expected, "logits");
  CHECK(largest_difference(is.logits, logits) / largest(logits) <= 2 * peer["logits"].get<double>());
  CHECK(gradient_error(is, should) <= 2 * peer["gradients"].get<double>());
}

}  // namespace

TEST_CASE("bfloat16 lies at most twice as far from float64 as PyTorch's") {
  PARSCALE_NEEDS_A_GPU();
  compare_bfloat16<on_gpu(64, 4)>("p4_hd64_long");
  compare_bfloat16<on_gpu(64, 4, CrossAttention::sublayer)>("p4_hd64_sublayer");
  compare_bfloat16<on_gpu(128, 2, CrossAttention::expanded)>("p2_hd128_expanded");
  compare_bfloat16<on_gpu(128, 8)>("p8_hd128_long");
}

TEST_CASE("Golden cases on a GPU") {
  PARSCALE_NEEDS_A_GPU();
  const int ran = run_on_gpu<on_gpu(64, 4), on_gpu(64, 4, CrossAttention::sublayer),
                             on_gpu(128, 2, CrossAttention::expanded), on_gpu(128, 8)>();
  CHECK(ran >= 4);
}

}  // namespace parscale::test
