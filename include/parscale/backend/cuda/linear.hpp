/// Linear layers: the product with its bias and residual, and the gradient of its input. Host code only.
#pragma once

#include "../../core/bfloat16.hpp"
#include "../backend.hpp"
#include "cublaslt.hpp"

namespace parscale::cuda {

template <class S>
inline constexpr cudaDataType_t type_of = std::is_same_v<S, float> ? CUDA_R_32F : CUDA_R_16BF;

template <class S>
void linear(const Launch& on, Products& products, const op::Linear<S>& a) {
  const Index k = a.x.cols();
  products.run(on, {.in = type_of<S>,
                    .out_type = type_of<S>,
                    .m = a.x.rows(),
                    .n = a.weight.rows(),
                    .k = k,
                    .a = {a.x.data, k},
                    .b = {a.weight.data, k, true},
                    .bias = a.bias ? a.bias.data : nullptr,
                    .add = a.add ? a.add.data : nullptr,
                    .out = a.out.data});
}

/// x weight^T in float32, whatever the factors are: [M,K] x [V,K] -> [M,V].
template <class S>
void logits(const Launch& on, Products& products, In<S> x, In<S> weight, Out<float> out) {
  products.run(on, {.in = type_of<S>,
                    .out_type = CUDA_R_32F,
                    .m = x.rows(),
                    .n = weight.rows(),
                    .k = x.cols(),
                    .a = {x.data, x.cols()},
                    .b = {weight.data, x.cols(), true},
                    .out = out.data});
}

template <class S>
void linear_input_gradient(const Launch& on, Products& products, const op::LinearInputGradient<S>& a) {
  products.run(on, {.in = type_of<S>,
                    .out_type = type_of<S>,
                    .m = a.d_out.rows(),
                    .n = a.weight.cols(),
                    .k = a.d_out.cols(),
                    .a = {a.d_out.data, a.d_out.cols()},
                    .b = {a.weight.data, a.weight.cols()},
                    .add = a.accumulate ? a.d_x.data : nullptr,
                    .out = a.d_x.data});
}

}  // namespace parscale::cuda
