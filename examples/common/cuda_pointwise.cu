// The CUDA backend's operations on rows and elements, compiled once for all architectures.
#include <parscale/backend/cuda/cuda_pointwise.cuh>

namespace parscale {

template void CudaBackend<BFloat16>::fill_zero(Out<float>);
template void CudaBackend<BFloat16>::copy(In<BFloat16>, Out<BFloat16>);
template void CudaBackend<BFloat16>::round(In<float>, Out<BFloat16>);
template void CudaBackend<BFloat16>::add_wide(In<float>, Out<float>);
template void CudaBackend<BFloat16>::round_wide(In<float>, Out<BFloat16>);
template void CudaBackend<BFloat16>::widen(In<BFloat16>, Out<float>, bool);
template void CudaBackend<BFloat16>::sums_of_squares(std::span<const In<float>>, std::span<double>);
template void CudaBackend<BFloat16>::embed(const op::Embed<BFloat16>&);
template void CudaBackend<BFloat16>::embed_backward(const op::EmbedBackward<BFloat16, float>&);
template void CudaBackend<BFloat16>::sum_replicas(const op::SumReplicas<BFloat16>&);
template void CudaBackend<BFloat16>::rms_norm(const op::RmsNorm<BFloat16, float>&);
template void CudaBackend<BFloat16>::rms_norm_backward(const op::RmsNormBackward<BFloat16, float>&);
template void CudaBackend<BFloat16>::gated_mlp(const op::GatedMlp<BFloat16>&);
template void CudaBackend<BFloat16>::gated_mlp_backward(const op::GatedMlpBackward<BFloat16>&);
template void CudaBackend<BFloat16>::silu(const op::Silu<BFloat16>&);
template void CudaBackend<BFloat16>::silu_backward(const op::SiluBackward<BFloat16>&);
template void CudaBackend<BFloat16>::adamw(std::span<const op::AdamW<BFloat16, float>>);
template void CudaBackend<BFloat16>::rotate_heads(int, const op::Rotate<BFloat16>&);
template void CudaBackend<BFloat16>::append_heads(int, const op::Append<BFloat16>&);
template void CudaBackend<BFloat16>::merge_replicas(int, const op::Merge<BFloat16, float>&);
template void CudaBackend<BFloat16>::merge_replicas_backward(int, const op::MergeBackward<BFloat16, float>&);

template void CudaBackend<float>::fill_zero(Out<float>);
template void CudaBackend<float>::copy(In<float>, Out<float>);
template void CudaBackend<float>::round(In<float>, Out<float>);
template void CudaBackend<float>::add_wide(In<float>, Out<float>);
template void CudaBackend<float>::round_wide(In<float>, Out<BFloat16>);
template void CudaBackend<float>::widen(In<BFloat16>, Out<float>, bool);
template void CudaBackend<float>::sums_of_squares(std::span<const In<float>>, std::span<double>);
template void CudaBackend<float>::embed(const op::Embed<float>&);
template void CudaBackend<float>::embed_backward(const op::EmbedBackward<float, float>&);
template void CudaBackend<float>::sum_replicas(const op::SumReplicas<float>&);
template void CudaBackend<float>::rms_norm(const op::RmsNorm<float, float>&);
template void CudaBackend<float>::rms_norm_backward(const op::RmsNormBackward<float, float>&);
template void CudaBackend<float>::gated_mlp(const op::GatedMlp<float>&);
template void CudaBackend<float>::gated_mlp_backward(const op::GatedMlpBackward<float>&);
template void CudaBackend<float>::silu(const op::Silu<float>&);
template void CudaBackend<float>::silu_backward(const op::SiluBackward<float>&);
template void CudaBackend<float>::adamw(std::span<const op::AdamW<float, float>>);
template void CudaBackend<float>::rotate_heads(int, const op::Rotate<float>&);
template void CudaBackend<float>::append_heads(int, const op::Append<float>&);
template void CudaBackend<float>::merge_replicas(int, const op::Merge<float, float>&);
template void CudaBackend<float>::merge_replicas_backward(int, const op::MergeBackward<float, float>&);

}  // namespace parscale
