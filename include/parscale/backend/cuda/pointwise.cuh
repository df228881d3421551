/// Operations on element after element: rounding, the gated MLP's activation, SiLU.
#pragma once

#include "../backend.hpp"
#include "numbers.cuh"

namespace parscale::cuda {

template <class S>
void copy(const Launch& on, In<S> in, Out<S> out) {
  if (in.count() == 0 || in.data == out.data) return;
  check(cudaMemcpyAsync(out.data, in.data, static_cast<std::size_t>(in.count()) * sizeof(S),
                        cudaMemcpyDeviceToDevice, on.stream),
        "copy");
}
template <class T>
void fill_zero(const Launch& on, Out<T> x) {
  if (x.count() == 0) return;
  check(cudaMemsetAsync(x.data, 0, static_cast<std::size_t>(x.count()) * sizeof(T), on.stream), "fill_zero");
}

// Each operation stands twice: for packs of N neighbours, and the choice of N by how its tensors lie.

template <int N, class S>
void round_packs(const Launch& on, In<float> in, Out<S> out) {
  each(on, "round", in.count() / N,
       [=] __device__(Index i) { store_floats(load_floats<N>(in.data + i * N), out.data + i * N); });
}
/// Master weights as the model computes with them.
template <class S>
void round(const Launch& on, In<float> in, Out<S> out) {
  packs<S>(in.count(), in.data, out.data) ? round_packs<pack_of<S>>(on, in, out)
                                          : round_packs<1>(on, in, out);
}

template <int N>
void widen_packs(const Launch& on, In<BFloat16> in, Out<float> out, bool add) {
  each(on, "widen", in.count() / N, [=] __device__(Index i) {
    auto x = load_floats<N>(in.data + i * N);
    if (add) {
      const auto earlier = load_floats<N>(out.data + i * N);
      for (int j = 0; j < N; ++j) x[j] += earlier[j];
    }
    store_floats(x, out.data + i * N);
  });
}
/// out = in, or out += in
inline void widen(const Launch& on, In<BFloat16> in, Out<float> out, bool add) {
  packs<BFloat16>(in.count(), in.data, out.data) ? widen_packs<pack_of<BFloat16>>(on, in, out, add)
                                                 : widen_packs<1>(on, in, out, add);
}

/// sum += x
inline void add(const Launch& on, In<float> x, Out<float> sum) {
  each(on, "add_wide", x.count(), [=] __device__(Index i) { sum.data[i] += x.data[i]; });
}

__device__ inline float sigmoid(float x) { return reciprocal(1.0F + power_of_two(-1.4426950408889634F * x)); }

__device__ inline float silu(float x) { return x * sigmoid(x); }

/// d silu(x) / dx
__device__ inline float silu_slope(float x, float sigmoid_of_x) {
  return sigmoid_of_x * (1.0F + x * (1.0F - sigmoid_of_x));
}

template <int N, class S>
void gated_mlp_packs(const Launch& on, const op::GatedMlp<S>& a) {
  const Index width = a.product.cols() / N;
  each(on, "gated_mlp", a.product.count() / N, [=] __device__(Index i) {
    const S* row = a.gate_up.data + (i + quotient(i, width) * width) * N;  // 2 * width packs a row
    const Pack<S, N> gates = load_pack<N>(row), ups = load_pack<N>(row + width * N);
    Floats<N> gate = floats(gates);
    const Floats<N> up = floats(ups);
#pragma unroll
    for (int k = 0; k < N; ++k) gate[k] = silu(gate[k]) * up[k];
    store_floats(gate, a.product.data + i * N);
  });
}
template <class S>
void gated_mlp(const Launch& on, const op::GatedMlp<S>& a) {
  packs<S>(a.product.cols(), a.gate_up.data, a.product.data) ? gated_mlp_packs<pack_of<S>>(on, a)
                                                             : gated_mlp_packs<1>(on, a);
}

template <int N, class S>
void gated_mlp_backward_packs(const Launch& on, const op::GatedMlpBackward<S>& a) {
  const Index width = a.product.cols() / N;
  each(on, "gated_mlp_backward", a.product.count() / N, [=] __device__(Index i) {
    S* row = a.gate_up.data + (i + quotient(i, width) * width) * N;
    const Pack<S, N> gates = load_pack<N>(row), ups = load_pack<N>(row + width * N);
    Floats<N> product = load_floats<N>(a.product.data + i * N), gate = floats(gates), up = floats(ups);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float d = product[k], s = sigmoid(gate[k]), silu = gate[k] * s;
      product[k] = silu * up[k];
      gate[k] = d * up[k] * silu_slope(gate[k], s);
      up[k] = d * silu;
    }
    store_floats(gate, row);
    store_floats(up, row + width * N);
    store_floats(product, a.product.data + i * N);
  });
}
template <class S>
void gated_mlp_backward(const Launch& on, const op::GatedMlpBackward<S>& a) {
  packs<S>(a.product.cols(), a.gate_up.data, a.product.data) ? gated_mlp_backward_packs<pack_of<S>>(on, a)
                                                             : gated_mlp_backward_packs<1>(on, a);
}

template <int N, class S>
void silu_packs(const Launch& on, const op::Silu<S>& a) {
  each(on, "silu", a.x.count() / N, [=] __device__(Index i) {
    Floats<N> x = load_floats<N>(a.x.data + i * N);
#pragma unroll
    for (int k = 0; k < N; ++k) x[k] *= sigmoid(x[k]);
    store_floats(x, a.out.data + i * N);
  });
}
template <class S>
void silu(const Launch& on, const op::Silu<S>& a) {
  packs<S>(a.x.count(), a.x.data, a.out.data) ? silu_packs<pack_of<S>>(on, a) : silu_packs<1>(on, a);
}

template <int N, class S>
void silu_backward_packs(const Launch& on, const op::SiluBackward<S>& a) {
  each(on, "silu_backward", a.x.count() / N, [=] __device__(Index i) {
    const Floats<N> x = load_floats<N>(a.x.data + i * N);
    Floats<N> d = load_floats<N>(a.d_out.data + i * N);
#pragma unroll
    for (int k = 0; k < N; ++k) d[k] *= silu_slope(x[k], sigmoid(x[k]));
    store_floats(d, a.d_x.data + i * N);
  });
}
template <class S>
void silu_backward(const Launch& on, const op::SiluBackward<S>& a) {
  packs<S>(a.x.count(), a.x.data, a.d_out.data, a.d_x.data) ? silu_backward_packs<pack_of<S>>(on, a)
                                                            : silu_backward_packs<1>(on, a);
}

}  // namespace parscale::cuda
