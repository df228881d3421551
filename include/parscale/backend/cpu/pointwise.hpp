/// Operations that treat every element by itself, and the sum of squares.
#pragma once

#include <cstring>

#include "../../core/bfloat16.hpp"
#include "../backend.hpp"
#include "threads.hpp"
#include "vectors.hpp"

namespace parscale::cpu {

inline constexpr Index pointwise_grain = 16384;

template <class T>
void fill_zero(Threads& threads, Out<T> x) {
  threads.run_chunks(x.count(), 4 * pointwise_grain, [&](Index begin, Index end) {
    std::memset(x.data + begin, 0, static_cast<std::size_t>(end - begin) * sizeof(T));
  });
}

template <class T>
void copy(Threads& threads, const T* in, T* out, Index count) {
  if (in == out) return;
  threads.run_chunks(count, 4 * pointwise_grain, [&](Index begin, Index end) {
    std::memcpy(out + begin, in + begin, static_cast<std::size_t>(end - begin) * sizeof(T));
  });
}

/// sum += x
template <class T>
void add(Threads& threads, const T* x, T* sum, Index count) {
  threads.run_chunks(count, 4 * pointwise_grain, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) sum[i] += x[i];
  });
}

template <class T>
void round_wide(Threads& threads, const T* in, BFloat16* out, Index count) {
  threads.run_chunks(count, 4 * pointwise_grain, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) out[i] = BFloat16(static_cast<float>(in[i]));
  });
}

/// out = in, or out += in
template <class T>
void widen(Threads& threads, const BFloat16* in, T* out, Index count, bool add) {
  threads.run_chunks(count, 4 * pointwise_grain, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) out[i] = static_cast<T>(in[i]) + (add ? out[i] : T{});
  });
}

/// In float64, in a fixed number of chunks: the same bits for any number of threads.
template <class T>
double sum_of_squares(Threads& threads, In<T> x) {
  constexpr Index chunks = 64;
  const Index grain = (x.count() + chunks - 1) / chunks;
  double part[chunks] = {};
  threads.run(chunks, [&](Index chunk, int) {
    const Index begin = chunk * grain, end = begin + grain < x.count() ? begin + grain : x.count();
    if (begin < end)
      part[chunk] = sum<double>(end - begin, [values = x.data + begin](Index i) {
        return static_cast<double>(values[i]) * static_cast<double>(values[i]);
      });
  });
  double total = 0;
  for (double p : part) total += p;
  return total;
}

template <class T>
void silu(Threads& threads, const op::Silu<T>& a) {
  threads.run_chunks(a.x.count(), pointwise_grain, [&](Index begin, Index end) {
    const T* x = a.x.data;
    T* out = a.out.data;
    for (Index i = begin; i < end; ++i) out[i] = x[i] * sigmoid(x[i]);
  });
}

template <class T>
void silu_backward(Threads& threads, const op::SiluBackward<T>& a) {
  threads.run_chunks(a.x.count(), pointwise_grain, [&](Index begin, Index end) {
    const T *x = a.x.data, *d_out = a.d_out.data;
    T* d_x = a.d_x.data;
    for (Index i = begin; i < end; ++i) {
      const T s = sigmoid(x[i]);
      d_x[i] = d_out[i] * s * (1 + x[i] * (1 - s));
    }
  });
}

/// Rows that make about one chunk of work.
inline Index rows_per_chunk(Index columns) {
  const Index rows = pointwise_grain / (columns > 0 ? columns : 1);
  return rows > 0 ? rows : 1;
}

template <class T>
void gated_mlp(Threads& threads, const op::GatedMlp<T>& a) {
  const Index width = a.product.cols();
  threads.run_chunks(a.product.rows(), rows_per_chunk(width), [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const T *gate = a.gate_up.row(row), *up = gate + width;
      T* product = a.product.row(row);
      for (Index i = 0; i < width; ++i) product[i] = gate[i] * sigmoid(gate[i]) * up[i];
    }
  });
}

template <class T>
void gated_mlp_backward(Threads& threads, const op::GatedMlpBackward<T>& a) {
  const Index width = a.product.cols();
  threads.run_chunks(a.product.rows(), rows_per_chunk(width), [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      T *gate = a.gate_up.row(row), *up = gate + width, *product = a.product.row(row);
      for (Index i = 0; i < width; ++i) {
        const T g = gate[i], u = up[i], d = product[i], s = sigmoid(g);
        gate[i] = d * u * s * (1 + g * (1 - s));
        up[i] = d * g * s;
        product[i] = g * s * u;
      }
    }
  });
}

}  // namespace parscale::cpu
