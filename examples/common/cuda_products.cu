// The CUDA backend's matrix products and the vocabulary head, compiled once for all architectures.
#include <parscale/backend/cuda/cuda_products.cuh>

namespace parscale {

template void CudaBackend<BFloat16>::linear(const op::Linear<BFloat16>&);
template void CudaBackend<BFloat16>::linear_input_gradient(const op::LinearInputGradient<BFloat16>&);
template void CudaBackend<BFloat16>::linear_weight_gradient(const op::LinearWeightGradient<BFloat16, float>&);
template void CudaBackend<BFloat16>::gated_linear(const op::GatedLinear<BFloat16>&);
template void CudaBackend<BFloat16>::gated_linear_backward(const op::GatedLinearBackward<BFloat16>&);
template double CudaBackend<BFloat16>::head_loss(const op::HeadLoss<BFloat16, float>&);
template void CudaBackend<BFloat16>::logits(const op::Logits<BFloat16, float>&);

template void CudaBackend<float>::linear(const op::Linear<float>&);
template void CudaBackend<float>::linear_input_gradient(const op::LinearInputGradient<float>&);
template void CudaBackend<float>::linear_weight_gradient(const op::LinearWeightGradient<float, float>&);
template void CudaBackend<float>::gated_linear(const op::GatedLinear<float>&);
template void CudaBackend<float>::gated_linear_backward(const op::GatedLinearBackward<float>&);
template double CudaBackend<float>::head_loss(const op::HeadLoss<float, float>&);
template void CudaBackend<float>::logits(const op::Logits<float, float>&);

}  // namespace parscale
