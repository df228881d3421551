/// Linear layers: the product with its bias and residual, and its two gradients. Each is a fixed grid of
/// output tiles over products of one thread.
#pragma once

#include <algorithm>

#include "../backend.hpp"
#include "products.hpp"
#include "threads.hpp"

namespace parscale::cpu {

template <class T>
Block<T> block(View<T> v, Index row, Index rows, Index col, Index cols) {
  return {v.row(row) + col, rows, cols, v.cols()};
}

/// f(row, rows, col, cols) for every tile of a [rows,cols] matrix.
template <class F>
void for_each_tile(Threads& threads, Index rows, Index cols, Index tile_rows, Index tile_cols, F f) {
  const Index down = (rows + tile_rows - 1) / tile_rows, across = (cols + tile_cols - 1) / tile_cols;
  threads.run(down * across, [&](Index tile, int) {
    const Index row = tile / across * tile_rows, col = tile % across * tile_cols;
    f(row, std::min(tile_rows, rows - row), col, std::min(tile_cols, cols - col));
  });
}

template <class T>
void linear(Threads& threads, const op::Linear<T>& a) {
  const Index inner = a.x.cols();
  for_each_tile(
      threads, a.out.rows(), a.out.cols(), 256, 256, [&](Index row, Index rows, Index col, Index cols) {
        const Block<T> out = block(a.out, row, rows, col, cols);
        for (Index i = 0; i < rows; ++i) {
          T* y = out.row(i);
          if (a.add && a.add.data != a.out.data) std::copy_n(a.add.row(row + i) + col, cols, y);
          if (!a.add) std::fill_n(y, cols, T(0));
          if (a.bias)
            for (Index j = 0; j < cols; ++j) y[j] += a.bias.data[col + j];
        }
        add_product_nt<T>(block(a.x, row, rows, 0, inner), block(a.weight, col, cols, 0, inner), out, 1);
      });
}

template <class T>
void linear_input_gradient(Threads& threads, const op::LinearInputGradient<T>& a) {
  const Index inner = a.weight.rows();
  for_each_tile(
      threads, a.d_x.rows(), a.d_x.cols(), 256, 256, [&](Index row, Index rows, Index col, Index cols) {
        const Block<T> d_x = block(a.d_x, row, rows, col, cols);
        if (!a.accumulate)
          for (Index i = 0; i < rows; ++i) std::fill_n(d_x.row(i), cols, T(0));
        add_product<T>(block(a.d_out, row, rows, 0, inner), block(a.weight, 0, inner, col, cols), d_x, 1);
      });
}

template <class T>
void linear_weight_gradient(Threads& threads, const op::LinearWeightGradient<T, T>& a) {
  const Index inner = a.x.rows(), first = a.first_column;
  if (a.d_weight)
    for_each_tile(threads, a.d_weight.rows(), a.d_weight.cols(), 256, 256,
                  [&](Index row, Index rows, Index col, Index cols) {
                    add_product_tn<T>(block(a.d_out, 0, inner, first + row, rows),
                                      block(a.x, 0, inner, col, cols),
                                      block(a.d_weight, row, rows, col, cols), 1);
                  });
  if (a.d_bias)
    threads.run_chunks(a.d_bias.count(), 64, [&](Index begin, Index end) {
      for (Index i = 0; i < inner; ++i) {
        const T* d_out = a.d_out.row(i) + first;
        for (Index j = begin; j < end; ++j) a.d_bias.data[j] += d_out[j];
      }
    });
}

}  // namespace parscale::cpu
