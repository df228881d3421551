/// The vocabulary head with its cross-entropy, some thousand rows of logits at a time: their product, one
/// kernel that turns them into their own gradient, and the two products of that.
#pragma once

#include "cross_entropy.cuh"
#include "linear.cuh"

namespace parscale::cuda {

/// total = the sum of the losses, in order.
template <int threads>
__global__ void __launch_bounds__(threads)
    add_losses_kernel(const double* losses, Index count, double* total) {
  double sum = 0;
  for (Index i = threadIdx.x; i < count; i += threads) sum += losses[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *total = sum;
}

/// What the logits that are alive at once may take: enough rows for the weight's gradient, which each chunk
/// reads and writes as a whole, to cost little beside its product.
inline constexpr std::size_t head_loss_bytes = std::size_t{5} << 28;

/// Rows of a chunk: all chunks have about the same number, in whole tiles of a product.
template <class S>
Index head_loss_rows(Index positions, Index vocabulary) {
  constexpr Index tile = 256;
  const Index fitting =
      std::max(tile, static_cast<Index>(head_loss_bytes / sizeof(S)) / std::max<Index>(vocabulary, 1));
  const Index chunks = std::max<Index>(1, (positions + fitting - 1) / fitting);
  const Index rows = (positions + chunks - 1) / chunks;
  return std::min(std::max<Index>(positions, 1), (rows + tile - 1) / tile * tile);
}
/// Bytes of scratch that head_loss takes.
template <class S>
std::size_t head_loss_scratch(Index positions, Index vocabulary) {
  return static_cast<std::size_t>(positions + 1) * sizeof(double) + 256 +
         static_cast<std::size_t>(head_loss_rows<S>(positions, vocabulary) * vocabulary) * sizeof(S);
}

/// Waits for the stream.
template <class S>
double head_loss(const Launch& on, Products& products, const op::HeadLoss<S, float>& a) {
  const Index positions = a.x.rows(), hidden = a.x.cols(), vocabulary = a.weight.rows();
  if (positions == 0) return 0;
  const Index chunk = head_loss_rows<S>(positions, vocabulary);
  std::byte* memory =
      on.scratch.take<std::byte>(static_cast<Index>(head_loss_scratch<S>(positions, vocabulary)));
  double *total = reinterpret_cast<double*>(memory), *losses = total + 1;
  const std::size_t before = (static_cast<std::size_t>(positions + 1) * sizeof(double) + 255) / 256 * 256;
  const float d_scale = a.d_x || a.d_weight ? static_cast<float>(a.scale) : 0.0F;
  for (Index first = 0; first < positions; first += chunk) {
    const Index n = std::min(chunk, positions - first);
    const View<S> logits{reinterpret_cast<S*>(memory + before), {n, vocabulary}};
    const In<S> x{a.x.row(first), {n, hidden}};
    linear<S>(on, products, {.x = x, .weight = a.weight, .out = logits});
    cross_entropy(on, logits, a.targets.data + first, d_scale, losses + first);
    if (a.d_x)
      linear_input_gradient<S>(on, products,
                               {.d_out = logits, .weight = a.weight, .d_x = {a.d_x.row(first), {n, hidden}}});
    if (a.d_weight)
      linear_weight_gradient<S>(
          on, products,
          {.x = x, .d_out = logits, .d_weight = a.d_weight, .accumulate = a.accumulate || first > 0});
  }
  add_losses_kernel<1024><<<1, 1024, 0, on.stream>>>(losses, positions, total);
  double loss = 0;
  check(cudaMemcpyAsync(&loss, total, sizeof(loss), cudaMemcpyDeviceToHost, on.stream), "head_loss");
  check(cudaStreamSynchronize(on.stream), "head_loss");
  return loss * a.scale;
}

}  // namespace parscale::cuda
