/// The weight gradient of a linear layer: a product, and for the bias a sum over rows.
#pragma once

#include "linear.hpp"
#include "reduce.cuh"

namespace parscale::cuda {

/// Bytes of scratch that a weight gradient takes for its bias.
inline std::size_t linear_weight_gradient_scratch(Index rows, Index bias) {
  return column_sums_scratch(rows, bias);
}

template <class S>
void linear_weight_gradient(const Launch& on, Products& products,
                            const op::LinearWeightGradient<S, float>& a) {
  const Index rows = a.x.rows(), width = a.d_out.cols();
  const S* d_out = a.d_out.data + a.first_column;
  if (a.d_weight)
    products.run(on, {.in = type_of<S>,
                      .out_type = CUDA_R_32F,
                      .m = a.d_weight.rows(),
                      .n = a.x.cols(),
                      .k = rows,
                      .a = {d_out, width, true},
                      .b = {a.x.data, a.x.cols()},
                      .add = a.accumulate ? a.d_weight.data : nullptr,
                      .out = a.d_weight.data});
  if (a.d_bias)
    add_column_sums(on, "linear_weight_gradient", d_out, rows, a.d_bias.count(), width, a.d_bias.data,
                    a.accumulate);
}

}  // namespace parscale::cuda
