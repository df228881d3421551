/// Linear layers and the vocabulary head on the GPU against the CPU backend in float64; which of the
/// library's algorithms were chosen, and what is remembered of that.
#include <array>
#include <filesystem>
#include <fstream>

#include <parscale/backend/cuda/head_loss.cuh>

#include "operation_program.cuh"

using namespace parscale;
using namespace parscale::test;

namespace {

enum class Added { nothing, other, out };

template <class S>
void test_linear(const cuda::Launch& on, cuda::Products& products, Index M, Index K, Index N, bool biased,
                 Added added, Index skew) {
  Case c(on, skew);
  auto &x = c.input<S>({M, K}), &weight = c.input<S>({N, K}), &bias = c.input<S>({N});
  auto& other = c.input<S>({M, N});
  const double allowed =
      (added == Added::nothing ? 1 : 2) * rounding<S>;  // the product is rounded before it is added
  auto& out =
      added == Added::out ? c.updated<S>("out", {M, N}, allowed) : c.result<S>("out", {M, N}, allowed);
  auto& add = added == Added::out ? out : other;
  auto& logits = c.result<float>("logits", {M, N}, 1e-5);
  c.run(
      call("linear", M, K, N, biased, static_cast<int>(added), skew),
      [&] {
        cuda::linear<S>(on, products,
                        {.x = x,
                         .weight = weight,
                         .bias = bias.in_if(biased),
                         .add = add.in_if(added != Added::nothing),
                         .out = out});
        cuda::logits<S>(on, products, x, weight, logits);
      },
      [&] {
        reference::run(op::Linear<double>{.x = x.wide(),
                                          .weight = weight.wide(),
                                          .bias = bias.wide_if(biased),
                                          .add = add.wide_if(added != Added::nothing),
                                          .out = out.wide()});
        reference::run(op::Linear<double>{.x = x.wide(), .weight = weight.wide(), .out = logits.wide()});
      });
}

template <class S>
void test_gradients(const cuda::Launch& on, cuda::Products& products, Index M, Index K, Index N, Index first,
                    Index others, bool accumulate, Index skew) {
  {
    Case c(on, skew);
    auto &d_out = c.input<S>({M, N}), &weight = c.input<S>({N, K});
    auto& d_x = accumulate ? c.updated<S>("d_x", {M, K}, 2 * rounding<S>) : c.result<S>("d_x", {M, K});
    c.run(
        call("linear_input_gradient", M, K, N, accumulate, skew),
        [&] {
          cuda::linear_input_gradient<S>(
              on, products, {.d_out = d_out, .weight = weight, .d_x = d_x, .accumulate = accumulate});
        },
        [&] {
          reference::run(op::LinearInputGradient<double>{
              .d_out = d_out.wide(), .weight = weight.wide(), .d_x = d_x.wide(), .accumulate = accumulate});
        });
  }
  Case c(on, skew);
  auto &x = c.input<S>({M, K}), &d_out = c.input<S>({M, first + N + others});
  auto& d_weight =
      accumulate ? c.updated<float>("d_weight", {N, K}, 1e-5) : c.result<float>("d_weight", {N, K}, 1e-5);
  auto& d_bias = accumulate ? c.updated<float>("d_bias", {N}, 1e-5) : c.result<float>("d_bias", {N}, 1e-5);
  c.run(
      call("linear_weight_gradient", M, K, N, first, others, accumulate, skew),
      [&] {
        cuda::linear_weight_gradient<S>(on, products,
                                        {.x = x,
                                         .d_out = d_out,
                                         .first_column = first,
                                         .d_weight = d_weight,
                                         .d_bias = d_bias,
                                         .accumulate = accumulate});
      },
      [&] {
        reference::run(op::LinearWeightGradient<double, double>{.x = x.wide(),
                                                                .d_out = d_out.wide(),
                                                                .first_column = first,
                                                                .d_weight = d_weight.wide(),
                                                                .d_bias = d_bias.wide(),
                                                                .accumulate = accumulate});
      });
}

template <class S>
void test_head_loss(const cuda::Launch& on, cuda::Products& products, Index N, Index H, Index V,
                    bool gradients, bool accumulate, Index skew) {
  constexpr bool exact = std::is_same_v<S, float>;
  Case c(on, skew);
  auto &x = c.input<S>({N, H}), &weight = c.input<S>({V, H}, 0.1);
  auto& targets = c.integers<Token>({N}, [&](Index i) { return i % 5 == 2 ? -1 : random_below(V); });
  auto& d_x = gradients ? c.result<S>("d_x", {N, H}, exact ? 1e-4 : 8e-3) : c.updated<S>("d_x", {N, H});
  const double allowed = exact ? 1e-4 : 4e-3;
  auto& d_weight = accumulate ? c.updated<float>("d_weight", {V, H}, allowed, 0.01)
                              : c.result<float>("d_weight", {V, H}, allowed);
  auto& loss = c.result<double>("loss", {1}, exact ? 1e-5 : 2e-3);
  c.run(
      call("head_loss", N, H, V, gradients, accumulate, skew),
      [&] {
        const double value = cuda::head_loss<S>(on, products,
                                                {.x = x,
                                                 .weight = weight,
                                                 .targets = targets,
                                                 .scale = 1.0 / static_cast<double>(N),
                                                 .d_x = d_x.out_if(gradients),
                                                 .d_weight = d_weight.out_if(gradients),
                                                 .accumulate = accumulate});
        cuda::check(cudaMemcpy(loss.data(), &value, sizeof(value), cudaMemcpyHostToDevice), "upload");
      },
      [&] {
        loss.expected[0] =
            reference::run(op::HeadLoss<double, double>{.x = x.wide(),
                                                        .weight = weight.wide(),
                                                        .targets = targets.host(),
                                                        .scale = 1.0 / static_cast<double>(N),
                                                        .d_x = d_x.wide_if(gradients),
                                                        .d_weight = d_weight.wide_if(gradients),
                                                        .accumulate = accumulate});
      });
}

template <class S>
void test_all(const cuda::Launch& on, cuda::Products& products) {
  constexpr std::array<Index, 3> shapes[] = {{64, 128, 96},  {33, 72, 40}, {5, 17, 9},    {1, 64, 200},
                                             {130, 1536, 4}, {70, 4, 256}, {257, 96, 264}};
  for (const Index skew : {0, 1}) {
    for (const auto& [M, K, N] : shapes) {
      for (const bool biased : {false, true})
        for (const auto added : {Added::nothing, Added::other, Added::out})
          test_linear<S>(on, products, M, K, N, biased, added, skew);
      test_gradients<S>(on, products, M, K, N, 0, 0, false, skew);
      test_gradients<S>(on, products, M, K, N, 8, 16, true, skew);
      test_gradients<S>(on, products, M, K, N, 3, 2, true, skew);
    }
    test_gradients<S>(on, products, 5000, 40, 64, 0, 8, true, skew);
    for (const auto& [N, H, V] :
         {std::array<Index, 3>{300, 64, 1000}, {17, 32, 50257}, {5, 8, 37}, {6, 16, 40000}, {9, 8, 151936}})
      for (const auto& [gradients, accumulate] : {std::pair{false, true}, {true, true}, {true, false}})
        test_head_loss<S>(on, products, N, H, V, gradients, accumulate, skew);
  }
}

/// A folder that does not outlive the test.
struct TemporaryFolder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("parscale-products-" + std::to_string(getpid()));
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::string text() const {
    std::string all;
    for (const auto& entry : std::filesystem::directory_iterator(path))
      if (entry.path().extension() == ".txt")
        all += std::string(std::istreambuf_iterator<char>(std::ifstream(entry.path()).rdbuf()), {});
    return all;
  }
  void append(const std::string& line) const {
    for (const auto& entry : std::filesystem::directory_iterator(path))
      if (entry.path().extension() == ".txt") std::ofstream(entry.path(), std::ios::app) << line;
  }
};

void expect(bool holds, const char* what) {
  ++Case::checks;
  if (holds) return;
  ++Case::failures;
  std::printf("FAILED %s\n", what);
}

/// Choices are written once, read again, and survive damage beside them.
void test_choices(const cuda::Device& device, const cuda::Launch& on) {
  const TemporaryFolder folder;
  const auto multiply = [&](const std::filesystem::path& where) {
    cuda::Products products(device, false, {.folder = where});
    test_linear<BFloat16>(on, products, 256, 512, 384, true, Added::out, 0);
  };
  multiply(folder.path);
  const std::string once = folder.text();
  expect(!once.empty(), "choices are remembered");
  multiply(folder.path);
  expect(folder.text() == once, "remembered choices stay");
  folder.append("1 2 3 damaged\n");
  multiply(folder.path);
  expect(folder.text().starts_with(once), "damaged lines are skipped");
  multiply("/proc/no/such/folder");  // cannot be written: works without
  multiply({});
}

}  // namespace

int main(int count, char** words) {
  return operation_program(count, words, [](const cuda::Device& device, const cuda::Launch& on) {
    cuda::Products products(device, false, {.folder = {}});
    test_all<float>(on, products);
    test_all<BFloat16>(on, products);
    if (Case::every == 1) test_choices(device, on);
  });
}
