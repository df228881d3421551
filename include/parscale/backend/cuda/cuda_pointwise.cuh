/// The CUDA backend's operations on rows and elements: checked, then launched.
#pragma once

#include "../checks.hpp"
#include "adamw.cuh"
#include "append.cuh"
#include "cuda.hpp"
#include "embedding.cuh"
#include "merge.cuh"
#include "pointwise.cuh"
#include "reduce.cuh"
#include "rms_norm.cuh"
#include "rotate.cuh"

namespace parscale {

template <class S>
void CudaBackend<S>::fill_zero(Out<float> x) {
  cuda::fill_zero(launch(), x);
}

template <class S>
void CudaBackend<S>::copy(In<S> in, Out<S> out) {
  Operands("copy").vector("out", out, in.count());
  cuda::copy(launch(), in, out);
}

template <class S>
void CudaBackend<S>::round(In<float> in, Out<S> out) {
  Operands("round").vector("out", out, in.count());
  cuda::round(launch(), in, out);
}

template <class S>
void CudaBackend<S>::add_wide(In<float> x, Out<float> sum) {
  Operands("add_wide").vector("sum", sum, x.count());
  cuda::add(launch(), x, sum);
}

template <class S>
void CudaBackend<S>::round_wide(In<float> in, Out<BFloat16> out) {
  Operands("round_wide").vector("out", out, in.count());
  cuda::round(launch(), in, out);
}

template <class S>
void CudaBackend<S>::widen(In<BFloat16> in, Out<float> out, bool add) {
  Operands("widen").vector("out", out, in.count());
  cuda::widen(launch(), in, out, add);
}

template <class S>
void CudaBackend<S>::sums_of_squares(std::span<const In<float>> tensors, std::span<double> sums) {
  cuda::sums_of_squares(launch(), tensors, sums);
}

template <class S>
void CudaBackend<S>::embed(const op::Embed<S>& a) {
  check(a);
  cuda::embed(launch(), a);
}

template <class S>
void CudaBackend<S>::embed_backward(const op::EmbedBackward<S, float>& a) {
  check(a);
  cuda::embed_backward(launch(), a);
}

template <class S>
void CudaBackend<S>::sum_replicas(const op::SumReplicas<S>& a) {
  check(a);
  cuda::sum_replicas(launch(), a);
}

template <class S>
void CudaBackend<S>::rms_norm(const op::RmsNorm<S, float>& a) {
  check(a);
  cuda::rms_norm(launch(), a);
}

template <class S>
void CudaBackend<S>::rms_norm_backward(const op::RmsNormBackward<S, float>& a) {
  check(a);
  cuda::rms_norm_backward(launch(), a);
}

template <class S>
void CudaBackend<S>::gated_mlp(const op::GatedMlp<S>& a) {
  check(a);
  cuda::gated_mlp(launch(), a);
}

template <class S>
void CudaBackend<S>::gated_mlp_backward(const op::GatedMlpBackward<S>& a) {
  check(a);
  cuda::gated_mlp_backward(launch(), a);
}

template <class S>
void CudaBackend<S>::silu(const op::Silu<S>& a) {
  check(a);
  cuda::silu(launch(), a);
}

template <class S>
void CudaBackend<S>::silu_backward(const op::SiluBackward<S>& a) {
  check(a);
  cuda::silu_backward(launch(), a);
}

template <class S>
void CudaBackend<S>::adamw(std::span<const op::AdamW<S, float>> updates) {
  for (const auto& update : updates) check(update);
  cuda::adamw(launch(), updates);
}

template <class S>
void CudaBackend<S>::rotate_heads(int D, const op::Rotate<S>& a) {
  check(D, a);
  cuda::rotate(launch(), state_->rotary, D, a);
}

template <class S>
void CudaBackend<S>::append_heads(int D, const op::Append<S>& a) {
  check(D, a);
  cuda::append(launch(), D, a);
}

template <class S>
void CudaBackend<S>::merge_replicas(int P, const op::Merge<S, float>& a) {
  check(P, a);
  cuda::merge(launch(), P, a);
}

template <class S>
void CudaBackend<S>::merge_replicas_backward(int P, const op::MergeBackward<S, float>& a) {
  check(P, a);
  cuda::merge_backward(launch(), P, a);
}

}  // namespace parscale
