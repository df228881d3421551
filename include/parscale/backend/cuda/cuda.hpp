/// The CUDA backend: one GPU, one stream. Declared here for any C++ compiler; the operations themselves are
/// in the .cuh files, which cuda.cuh collects for nvcc. A program compiles them once
/// (`template class parscale::CudaBackend<parscale::BFloat16>;` in a .cu file) and includes this header
/// elsewhere.
#pragma once

#include <memory>

#include "../../core/bfloat16.hpp"
#include "../backend.hpp"
#include "device.hpp"
#include "linear.hpp"
#include "rotary_tables.hpp"

namespace parscale {

struct CudaOptions {
  int device = 0;  ///< number of the GPU, as CUDA_VISIBLE_DEVICES shows them
  bool measure =
      true;           ///< products of a new shape are measured once, about 0.3 s; else cuBLASLt's first guess
  bool tf32 = false;  ///< products of float32 operands in tf32: faster, 10 bits of mantissa
};

/// S is what activations and lent weights are stored as: BFloat16, or float for checking. Sums, statistics,
/// gradients and master weights are float in both. Results have the same bits in every run on one kind of
/// GPU. Operands that do not fit together throw ConfigurationError, and so does CUDA itself, naming the
/// operation.
template <class S>
class CudaBackend {
 public:
  using Scalar = S;
  using Wide = float;
  using Buffer = cuda::Buffer;

  explicit CudaBackend(CudaOptions options = {}) : state_(std::make_unique<State>(options)) {}

  const cuda::Device& device() const { return state_->device; }
  cudaStream_t stream() const { return state_->stream.get(); }

  /// Scratch memory that this object comes to hold when a model of `shape` trains on `layout`.
  std::size_t scratch_bytes(const Shape& shape, const Layout& layout, int head_dim) const;

  Buffer allocate(std::size_t bytes) {
    state_->device.use();
    return Buffer(bytes);
  }
  template <class T>
  void to_host(View<T> in, std::remove_const_t<T>* host) {
    state_->device.use();
    cuda::check(cudaMemcpyAsync(host, in.data, bytes_of(in), cudaMemcpyDeviceToHost, stream()), "to_host");
    synchronize();
  }
  template <class T>
  void from_host(const T* host, Out<T> out) {
    state_->device.use();
    cuda::check(cudaMemcpyAsync(out.data, host, bytes_of(out), cudaMemcpyHostToDevice, stream()),
                "from_host");
  }
  /// Waits for all operations, and throws what went wrong in one.
  void synchronize() { cuda::check(cudaStreamSynchronize(stream()), "an operation that ran before"); }

  // The operations of backend.hpp.
  void fill_zero(Out<float> x);
  void copy(In<S> in, Out<S> out);
  void copy_wide(In<float> in, Out<float> out) {
    state_->device.use();
    cuda::check(cudaMemcpyAsync(out.data, in.data, bytes_of(in), cudaMemcpyDeviceToDevice, stream()),
                "copy_wide");
  }
  void round(In<float> in, Out<S> out);
  void add_wide(In<float> x, Out<float> sum);  // sum += x
  void round_wide(In<float> in, Out<BFloat16> out);
  void widen(In<BFloat16> in, Out<float> out, bool add);  // out = in, or out += in
  void sums_of_squares(std::span<const In<float>> tensors, std::span<double> sums);
  void embed(const op::Embed<S>& a);
  void embed_backward(const op::EmbedBackward<S, float>& a);
  void sum_replicas(const op::SumReplicas<S>& a);
  void rms_norm(const op::RmsNorm<S, float>& a);
  void rms_norm_backward(const op::RmsNormBackward<S, float>& a);
  void linear(const op::Linear<S>& a);
  void linear_input_gradient(const op::LinearInputGradient<S>& a);
  void linear_weight_gradient(const op::LinearWeightGradient<S, float>& a);
  void gated_mlp(const op::GatedMlp<S>& a);
  void gated_mlp_backward(const op::GatedMlpBackward<S>& a);
  void gated_linear(const op::GatedLinear<S>& a);
  void gated_linear_backward(const op::GatedLinearBackward<S>& a);
  void silu(const op::Silu<S>& a);
  void silu_backward(const op::SiluBackward<S>& a);
  double head_loss(const op::HeadLoss<S, float>& a);
  void logits(const op::Logits<S, float>& a);
  void adamw(const op::AdamW<S, float>& a) { adamw(std::span(&a, 1)); }
  void adamw(std::span<const op::AdamW<S, float>> updates);

  template <int D>
  void rotate(Int<D>, const op::Rotate<S>& a) {
    rotate_heads(D, a);
  }
  template <int D>
  void append(Int<D>, const op::Append<S>& a) {
    append_heads(D, a);
  }
  template <int D>
  void attend(Int<D>, const op::Attend<S, float>& a) {
    attend_heads(D, 1, a);
  }
  template <int D>
  void attend_backward(Int<D>, const op::AttendBackward<S, float>& a) {
    attend_heads_backward(D, 1, a);
  }
  template <int D, int P>
  void attend_expanded(Int<D>, Int<P>, const op::Attend<S, float>& a) {
    attend_heads(D, P, a);
  }
  template <int D, int P>
  void attend_expanded_backward(Int<D>, Int<P>, const op::AttendBackward<S, float>& a) {
    attend_heads_backward(D, P, a);
  }
  template <int D, int P>
  void attend_replicas(Int<D>, Int<P>, const op::AttendReplicas<S>& a) {
    attend_heads_of_replicas(D, P, a);
  }
  template <int D, int P>
  void attend_replicas_backward(Int<D>, Int<P>, const op::AttendReplicasBackward<S>& a) {
    attend_heads_of_replicas_backward(D, P, a);
  }
  template <int P>
  void merge(Int<P>, const op::Merge<S, float>& a) {
    merge_replicas(P, a);
  }
  template <int P>
  void merge_backward(Int<P>, const op::MergeBackward<S, float>& a) {
    merge_replicas_backward(P, a);
  }

 private:
  struct State {
    explicit State(const CudaOptions& options)
        : device(options.device), products(device, options.tf32, {.measure = options.measure}) {}
    cuda::Device device;
    cuda::Stream stream;
    cuda::Scratch scratch, aligned_prefix;
    cuda::Products products;
    cuda::RotaryTables rotary;
  };

  // Whether a head size or a number of replicas has a kernel of its own is decided where the kernels are.
  void rotate_heads(int D, const op::Rotate<S>& a);
  void append_heads(int D, const op::Append<S>& a);
  void attend_heads(int D, int P, const op::Attend<S, float>& a);
  void attend_heads_backward(int D, int P, const op::AttendBackward<S, float>& a);
  void attend_heads_of_replicas(int D, int P, const op::AttendReplicas<S>& a);
  void attend_heads_of_replicas_backward(int D, int P, const op::AttendReplicasBackward<S>& a);
  void merge_replicas(int P, const op::Merge<S, float>& a);
  void merge_replicas_backward(int P, const op::MergeBackward<S, float>& a);

  template <class T>
  static std::size_t bytes_of(const View<T>& view) {
    return static_cast<std::size_t>(view.count()) * sizeof(T);
  }
  cuda::Launch launch() {
    state_->device.use();
    return state_->device.launch(stream(), state_->scratch);
  }

  std::unique_ptr<State> state_;
};

/// The backend to train with: bfloat16 operands, float32 sums and master weights.
using Cuda = CudaBackend<BFloat16>;

static_assert(Backend<CudaBackend<BFloat16>>);
static_assert(Backend<CudaBackend<float>>);

}  // namespace parscale
