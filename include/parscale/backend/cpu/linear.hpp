/// Linear layers: the product with its bias and residual, and its two gradients.
#pragma once

#include <algorithm>

#include "../backend.hpp"
#include "few_rows_product.hpp"
#include "pointwise.hpp"
#include "products.hpp"
#include "threads.hpp"
#include "vectors.hpp"

namespace parscale::cpu {

template <class T>
Block<T> block(View<T> v) {
  return {v.data, v.rows(), v.cols(), v.cols()};
}

/// out = bias + add, in place allowed: what a product with both is added to.
template <class T>
Base<T> bias_and_add(Threads& threads, const op::Linear<T>& a) {
  const Index cols = a.out.cols();
  threads.run_chunks(a.out.rows(), rows_per_chunk(cols), [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row)
      for (Index j = 0; j < cols; ++j) a.out.row(row)[j] = a.add.row(row)[j] + a.bias.data[j];
  });
  return {a.out.data, cols};
}

template <class T>
void linear(Threads& threads, Scratch& panels, const op::Linear<T>& a) {
  Base<T> base;
  if (a.bias && a.add)
    base = bias_and_add(threads, a);
  else if (a.bias)
    base = {a.bias.data, 0};
  else if (a.add)
    base = {a.add.data, a.add.cols()};
  if (a.out.rows() <= few_rows)
    few_rows_product<T>(threads, block(a.x), block(a.weight), base, block(a.out));
  else
    product(threads, panels, Strided<T>(a.x), Strided<T>(a.weight).transposed(), base, block(a.out));
}

template <class T>
void linear_input_gradient(Threads& threads, Scratch& panels, const op::LinearInputGradient<T>& a) {
  const Base<T> base = a.accumulate ? Base<T>{a.d_x.data, a.d_x.cols()} : Base<T>{};
  product(threads, panels, Strided<T>(a.d_out), Strided<T>(a.weight), base, block(a.d_x));
}

/// Every task owns some columns and adds their rows up in order.
template <class T>
void add_column_sums(Threads& threads, Block<const T> m, T* sums, bool accumulate) {
  threads.run_chunks(m.cols, 64, [&](Index begin, Index end) {
    if (!accumulate) std::fill(sums + begin, sums + end, T(0));
    for (Index i = 0; i < m.rows; ++i)
      for (Index j = begin; j < end; ++j) sums[j] += m.row(i)[j];
  });
}

template <class T>
void linear_weight_gradient(Threads& threads, Scratch& panels, const op::LinearWeightGradient<T, T>& a) {
  const Index n = a.d_weight ? a.d_weight.rows() : a.d_bias.count(), width = a.d_out.cols();
  const Block<const T> d_out{a.d_out.data + a.first_column, a.x.rows(), n, width};
  const Base<T> base = a.accumulate ? Base<T>{a.d_weight.data, a.d_weight.cols()} : Base<T>{};
  if (a.d_weight)
    product(threads, panels, Strided<T>(d_out.data, n, d_out.rows, 1, width), Strided<T>(a.x), base,
            block(a.d_weight));
  if (a.d_bias) add_column_sums(threads, d_out, a.d_bias.data, a.accumulate);
}

}  // namespace parscale::cpu
