/// The gated MLP's linear layers on the GPU against the CPU backend in float64: shapes of the fused kernels,
/// none a multiple of their tiles, and those that take a product and a pass of their own.
#include <array>
#include <cmath>

#include <parscale/backend/cuda/gated_linear.cuh>

#include "operation_program.cuh"

using namespace parscale;
using namespace parscale::test;

namespace {

template <class S>
void test_forward(const cuda::Launch& on, cuda::Products& products, Index M, Index H, Index I, Index skew) {
  Case c(on, skew);
  auto &x = c.input<S>({M, H}), &weight = c.input<S>({2 * I, H}, 1 / std::sqrt(static_cast<double>(H)));
  auto& gate_up = c.result<S>("gate_up", {M, 2 * I});
  auto& product = c.result<S>("product", {M, I}, 3 * rounding<S>);  // of rounded factors
  c.run(
      call("gated_linear", M, H, I, skew),
      [&] {
        cuda::gated_linear<S>(on, products,
                              {.x = x, .weight = weight, .gate_up = gate_up, .product = product});
      },
      [&] {
        reference::run(op::GatedLinear<double>{
            .x = x.wide(), .weight = weight.wide(), .gate_up = gate_up.wide(), .product = product.wide()});
      });
}

template <class S>
void test_backward(const cuda::Launch& on, cuda::Products& products, Index M, Index H, Index I, Index skew) {
  Case c(on, skew);
  auto &d_out = c.input<S>({M, H}), &weight = c.input<S>({H, I}, 1 / std::sqrt(static_cast<double>(H)));
  auto& gate_up = c.updated<S>("gate_up", {M, 2 * I}, 2 * rounding<S>);
  auto& product = c.result<S>("product", {M, I});
  c.run(
      call("gated_linear_backward", M, H, I, skew),
      [&] {
        cuda::gated_linear_backward<S>(
            on, products, {.d_out = d_out, .weight = weight, .gate_up = gate_up, .product = product});
      },
      [&] {
        reference::run(op::GatedLinearBackward<double>{.d_out = d_out.wide(),
                                                       .weight = weight.wide(),
                                                       .gate_up = gate_up.wide(),
                                                       .product = product.wide()});
      });
}

template <class S>
void test_both(const cuda::Launch& on, cuda::Products& products, const std::array<Index, 3>& shape,
               Index skew) {
  const auto& [M, H, I] = shape;
  test_forward<S>(on, products, M, H, I, skew);
  test_backward<S>(on, products, M, H, I, skew);
}

}  // namespace

int main(int count, char** words) {
  return operation_program(count, words, [](const cuda::Device& device, const cuda::Launch& on) {
    cuda::Products products(device, false, {.folder = {}});
    for (const std::array<Index, 3>& shape : {std::array<Index, 3>{1024, 1344, 256},
                                              {1025, 1352, 264},
                                              {1301, 1536, 776},
                                              {2600, 1480, 392},
                                              {1100, 456, 264},
                                              {5000, 1408, 1032}})
      test_both<BFloat16>(on, products, shape, 0);
    for (const std::array<Index, 3>& shape :
         {std::array<Index, 3>{1, 64, 8}, {37, 72, 40}, {1030, 1412, 260}, {1030, 1352, 268}, {300, 96, 33}})
      for (const Index skew : {0, 1}) {
        test_both<BFloat16>(on, products, shape, skew);
        test_both<float>(on, products, shape, skew);
      }
    test_both<BFloat16>(on, products, {1025, 1352, 264}, 1);  // addresses that the fused kernels refuse
  });
}
