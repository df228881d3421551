/// The CUDA backend's matrix products and the vocabulary head: checked, then launched.
#pragma once

#include "../checks.hpp"
#include "cuda.hpp"
#include "gated_linear.cuh"
#include "head_loss.cuh"
#include "linear.cuh"

namespace parscale {

template <class S>
void CudaBackend<S>::linear(const op::Linear<S>& a) {
  check(a);
  cuda::linear(launch(), state_->products, a);
}

template <class S>
void CudaBackend<S>::linear_input_gradient(const op::LinearInputGradient<S>& a) {
  check(a);
  cuda::linear_input_gradient(launch(), state_->products, a);
}

template <class S>
void CudaBackend<S>::linear_weight_gradient(const op::LinearWeightGradient<S, float>& a) {
  check(a);
  cuda::linear_weight_gradient(launch(), state_->products, a);
}

template <class S>
void CudaBackend<S>::gated_linear(const op::GatedLinear<S>& a) {
  check(a);
  cuda::gated_linear(launch(), state_->products, a);
}

template <class S>
void CudaBackend<S>::gated_linear_backward(const op::GatedLinearBackward<S>& a) {
  check(a);
  cuda::gated_linear_backward(launch(), state_->products, a);
}

template <class S>
double CudaBackend<S>::head_loss(const op::HeadLoss<S, float>& a) {
  check(a);
  return cuda::head_loss(launch(), state_->products, a);
}

template <class S>
void CudaBackend<S>::logits(const op::Logits<S, float>& a) {
  Operands("logits")
      .matrix("weight", a.weight, a.weight.rows(), a.x.cols())
      .matrix("out", a.out, a.x.rows(), a.weight.rows());
  cuda::logits(launch(), state_->products, a.x, a.weight, a.out);
}

}  // namespace parscale
