/// Every operation but causal attention at the shapes of Qwen2-1.5B, P = 4, B = 4, S = 2048: the least time
/// that its bytes or its multiplications take on this GPU, and the time measured. The two rates come from the
/// same run: a large copy (read and written bytes) and a product of 8192 x 8192 matrices.
///
///   operations_benchmark [runs] [replicas]     median milliseconds of `runs` (15); only P x P attention
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <parscale/backend/cuda/adamw.cuh>
#include <parscale/backend/cuda/attend_replicas.cuh>
#include <parscale/backend/cuda/device.hpp>
#include <parscale/backend/cuda/embedding.cuh>
#include <parscale/backend/cuda/head_loss.cuh>
#include <parscale/backend/cuda/merge.cuh>
#include <parscale/backend/cuda/pointwise.cuh>
#include <parscale/backend/cuda/rms_norm.cuh>
#include <parscale/backend/cuda/rotate.cuh>

using namespace parscale;
using S = BFloat16;

namespace {

constexpr Index H = 1536, I = 8960, A = 12, G = 2, D = 128, V = 151936, P = 4, B = 4, T = 2048;
constexpr Index N = B * T, M = P * N, Q = (A + 2 * G) * D;

__device__ unsigned hashed(Index i, unsigned seed) {
  unsigned h = static_cast<unsigned>(i) * 2654435761U + seed;
  h = (h ^ (h >> 15)) * 2246822519U;
  h = (h ^ (h >> 13)) * 3266489917U;
  return h ^ (h >> 16);
}

/// Random numbers between -scale and scale; ids below scale.
template <class E>
void fill(const cuda::Launch& on, View<E> x, float scale, unsigned seed) {
  cuda::each(on, "fill", x.count(), [=] __device__(Index i) {
    cuda::store((static_cast<float>(hashed(i, seed)) * 0x1p-31F - 1) * scale, x.data + i);
  });
}
void fill(const cuda::Launch& on, View<Token> x, float scale, unsigned seed) {
  const unsigned below = static_cast<unsigned>(scale);
  cuda::each(on, "fill", x.count(),
             [=] __device__(Index i) { x.data[i] = static_cast<Token>(hashed(i, seed) % below); });
}

class Benchmark {
 public:
  explicit Benchmark(int runs)
      : device_(0), launch_(device_.launch(stream_.get(), scratch_)), products_(device_), runs_(runs) {}

  void run(bool only_replicas) {
    measure_ceilings();
    std::printf("%-34s %10s %9s %9s %6s %12s\n", "operation", "size", "floor ms", "ms", "ratio", "rate");
    replicas();
    if (only_replicas) return;
    norms();
    rotations();
    gated_mlp();
    aggregation();
    embeddings();
    optimiser();
    linear("qkv", M, H, Q, true, false);
    linear("o", M, A * D, H, false, true);
    linear("gate, up", M, H, 2 * I, false, false);
    linear("down", M, I, H, false, true);
    linear("aggregation 0", N, P * H, H, true, false);
    linear("aggregation 2", N, H, P, true, false);
    head();
  }

 private:
  /// Random numbers between -scale and scale, on the device until drop().
  template <class E>
  View<E> take(const Extent& extent, float scale = 1) {
    memory_.push_back(std::make_unique<cuda::Buffer>(static_cast<std::size_t>(extent.count()) * sizeof(E)));
    const View<E> tensor{reinterpret_cast<E*>(memory_.back()->data()), extent};
    fill(launch_, tensor, scale, static_cast<unsigned>(++seed_) * 7919);
    return tensor;
  }
  View<Token> take_ids(Index count, Index below) { return take<Token>({count}, static_cast<float>(below)); }
  void drop() {
    cuda::check(cudaStreamSynchronize(stream_.get()), "benchmark");
    memory_.clear();
  }

  template <class F>
  double milliseconds(F f) {
    f();
    f();
    cuda::Stopwatch stopwatch(stream_.get());
    std::vector<float> times;
    for (int i = 0; i < runs_; ++i) times.push_back(stopwatch.time(f));
    std::nth_element(times.begin(), times.begin() + runs_ / 2, times.end());
    return times[static_cast<std::size_t>(runs_ / 2)];
  }
  /// Megabytes read and written.
  template <class F>
  void bytes(const std::string& name, double megabytes, F f) {
    const double ms = milliseconds(f), floor = megabytes / copy_rate_;
    std::printf("%-34s %7.0f MB %9.3f %9.3f %6.2f %7.0f GB/s\n", name.c_str(), megabytes, floor, ms,
                ms / floor, megabytes / ms);
  }
  /// Multiplications and additions of a product.
  template <class F>
  void product(const std::string& name, double m, double n, double k, F f) {
    const double ms = milliseconds(f), work = 2 * m * n * k, floor = work / product_rate_ * 1e-9;
    std::printf("%-34s %7.0f GF %9.3f %9.3f %6.2f %5.0f TFLOP/s\n", name.c_str(), work * 1e-9, floor, ms,
                ms / floor, work / ms * 1e-9);
  }
  /// Megabytes of bfloat16 or other elements.
  static double mb(Index count, Index element = sizeof(S)) {
    return static_cast<double>(count * element) * 1e-6;
  }

  void measure_ceilings() {
    const auto from = take<float>({Index{1} << 28}), to = take<float>({Index{1} << 28});
    const double copy = milliseconds([&] { cuda::copy<float>(launch_, from, to); });
    const double own = milliseconds([&] { cuda::round<float>(launch_, from, to); });
    copy_rate_ = 2 * mb(from.count(), 4) / std::min(copy, own);
    drop();
    const Index n = 8192;
    const auto a = take<S>({n, n}), b = take<S>({n, n}), c = take<S>({n, n});
    const double ms =
        milliseconds([&] { cuda::linear<S>(launch_, products_, {.x = a, .weight = b, .out = c}); });
    product_rate_ = 2.0 * n * n * n / ms * 1e-9;
    drop();
    std::printf("%s: copy %.0f GB/s, product %.0f TFLOP/s\n", device_.name().c_str(), copy_rate_,
                product_rate_);
  }

  void norms() {
    const auto x = take<S>({M, H}), d = take<S>({M, H}), r = take<S>({M, H}), y = take<S>({M, H}),
               gain = take<S>({H});
    const auto rstd = take<float>({M}), d_gain = take<float>({H});
    const op::RmsNorm<S, float> forward{.x = x, .gain = gain, .eps = 1e-6, .out = y, .rstd = rstd};
    const op::RmsNormBackward<S, float> backward{
        .x = x, .gain = gain, .rstd = rstd, .d_out = d, .d_residual = r, .d_x = r, .d_gain = d_gain};
    auto side_by_side = forward;
    side_by_side.interleave = P;
    auto side_by_side_backward = backward;
    side_by_side_backward.interleave = P;
    bytes("rms_norm", 2 * mb(M * H), [&] { cuda::rms_norm<S>(launch_, forward); });
    bytes("rms_norm, interleaved", 2 * mb(M * H), [&] { cuda::rms_norm<S>(launch_, side_by_side); });
    bytes("rms_norm_backward", 4 * mb(M * H), [&] { cuda::rms_norm_backward<S>(launch_, backward); });
    auto frozen = backward;
    frozen.d_gain = {};
    auto with_normed = backward;
    with_normed.normed = y;
    bytes("rms_norm_backward, frozen", 4 * mb(M * H), [&] { cuda::rms_norm_backward<S>(launch_, frozen); });
    bytes("rms_norm_backward, normed too", 5 * mb(M * H),
          [&] { cuda::rms_norm_backward<S>(launch_, with_normed); });
    bytes("rms_norm_backward, interleaved", 4 * mb(M * H),
          [&] { cuda::rms_norm_backward<S>(launch_, side_by_side_backward); });
    drop();
  }

  void rotations() {
    const auto qkv = take<S>({M, Q});
    cuda::RotaryTables tables;
    const Layout layout{.sequences = B, .tokens = T, .replicas = P};
    bytes("rotate q, k", 2 * mb(M * (A + G) * D), [&] {
      cuda::rotate<S>(launch_, tables, D, {.layout = layout, .x = qkv, .heads = A + G, .theta = 1e6});
    });
    drop();
  }

  void replicas() {
    const auto qkv = take<S>({M, Q}), out = take<S>({M, A * D}), d_qkv = take<S>({M, Q});
    const Layout layout{.sequences = B, .tokens = T, .replicas = P};
    bytes("P x P attention", mb(M * Q + M * A * D), [&] {
      cuda::attend_replicas<S>(launch_, D, P,
                               {.layout = layout, .heads = A, .kv_heads = G, .qkv = qkv, .out = out});
    });
    bytes("P x P attention, backward", mb(2 * M * Q + M * A * D), [&] {
      cuda::attend_replicas_backward<S>(
          launch_, D, P,
          {.layout = layout, .heads = A, .kv_heads = G, .qkv = qkv, .d_out = out, .d_qkv = d_qkv});
    });
    drop();
  }

  void gated_mlp() {
    const auto gate_up = take<S>({M, 2 * I}), product = take<S>({M, I});
    bytes("gated_mlp", 3 * mb(M * I),
          [&] { cuda::gated_mlp<S>(launch_, {.gate_up = gate_up, .product = product}); });
    bytes("gated_mlp_backward", 6 * mb(M * I),
          [&] { cuda::gated_mlp_backward<S>(launch_, {.gate_up = gate_up, .product = product}); });
    drop();
  }

  void aggregation() {
    const auto streams = take<S>({N, H, P}), d_streams = take<S>({N, H, P}), out = take<S>({N, H});
    const auto scores = take<S>({N, P}), d_scores = take<S>({N, P});
    const auto weights = take<float>({N, P});
    bytes("merge", mb(M * H + N * H), [&] {
      cuda::merge<S>(
          launch_, P,
          {.streams = streams, .scores = scores, .smoothing = 0.01, .weights = weights, .out = out});
    });
    bytes("merge_backward", mb(2 * M * H + N * H), [&] {
      cuda::merge_backward<S>(launch_, P,
                              {.streams = streams,
                               .weights = weights,
                               .smoothing = 0.01,
                               .d_out = out,
                               .d_streams = d_streams,
                               .d_scores = d_scores});
    });
    bytes("silu", mb(2 * M * H), [&] { cuda::silu<S>(launch_, {.x = streams, .out = d_streams}); });
    bytes("silu_backward", mb(3 * M * H),
          [&] { cuda::silu_backward<S>(launch_, {.x = streams, .d_out = d_streams, .d_x = d_streams}); });
    drop();
  }

  void embeddings() {
    const auto table = take<S>({V, H}), x = take<S>({M, H});
    const auto d_table = take<float>({V, H});
    const auto ids = take_ids(N, V), few = take_ids(N, 300), own = take_ids(M, V);
    bytes("embed", mb(N * H + M * H),
          [&] { cuda::embed<S>(launch_, {.ids = ids, .table = table, .out = x}); });
    const auto backward = [&](const char* name, In<Token> tokens, Index rows_of_table) {
      bytes(name, mb(M * H) + 2 * mb(rows_of_table * H, 4),
            [&] { cuda::embed_backward<S>(launch_, {.ids = tokens, .d_out = x, .d_table = d_table}); });
    };
    backward("embed_backward", ids, N);
    backward("embed_backward, 300 tokens", few, 300);
    backward("embed_backward, own ids", own, M);
    drop();
  }

  void optimiser() {
    std::vector<op::AdamW<S, float>> updates;
    std::vector<In<float>> gradients;
    Index all = 0;
    for (int i = 0; i < 96; ++i) {
      const Index n = i % 3 == 0 ? H : H * I / 2;
      const auto part = [&] { return take<float>({n}, 0.01F); };
      op::AdamW<S, float> a{};
      a.weight = part(), a.gradient = part(), a.first = part(), a.second = part(), a.lent = take<S>({n});
      a.learning_rate = 1e-5, a.beta1 = 0.9, a.beta2 = 0.999, a.epsilon = 1e-8, a.step = 1;
      updates.push_back(a);
      gradients.push_back(a.gradient);
      all += n;
    }
    std::vector<double> sums(gradients.size());
    bytes("adamw", mb(all, 30), [&] { cuda::adamw<S>(launch_, updates); });
    bytes("sums_of_squares", mb(all, 4), [&] { cuda::sums_of_squares(launch_, gradients, sums); });
    drop();
  }

  void linear(const std::string& name, Index m, Index k, Index n, bool biased, bool added) {
    const auto x = take<S>({m, k}), weight = take<S>({n, k}), out = take<S>({m, n}), bias = take<S>({n});
    const auto residual = take<S>({added ? m : 0, n});
    const auto d_weight = take<float>({n, k}), d_bias = take<float>({n});
    product(name, m, n, k, [&] {
      cuda::linear<S>(
          launch_, products_,
          {.x = x, .weight = weight, .bias = biased ? bias : View<S>{}, .add = residual, .out = out});
    });
    product(name + ", input gradient", m, n, k, [&] {
      cuda::linear_input_gradient<S>(launch_, products_, {.d_out = out, .weight = weight, .d_x = x});
    });
    product(name + ", weight gradient", m, n, k, [&] {
      cuda::linear_weight_gradient<S>(launch_, products_, {.x = x, .d_out = out, .d_weight = d_weight});
    });
    if (biased)
      bytes(name + ", bias gradient", mb(m * n), [&] {
        cuda::linear_weight_gradient<S>(launch_, products_, {.x = x, .d_out = out, .d_bias = d_bias});
      });
    drop();
  }

  void head() {
    const auto x = take<S>({N, H}), weight = take<S>({V, H}, 0.05F), d_x = take<S>({N, H});
    const auto d_weight = take<float>({V, H});
    const auto targets = take_ids(N, V);
    const Index rows = cuda::head_loss_rows<S>(N, V);
    {
      const auto logits = take<S>({rows, V});
      cuda::Buffer losses(static_cast<std::size_t>(rows) * sizeof(double));
      bytes("cross_entropy, a chunk", 2 * mb(rows * V), [&] {
        cuda::cross_entropy<S>(launch_, logits, targets.data, 1e-4F,
                               reinterpret_cast<double*>(losses.data()));
      });
    }
    product("head_loss with gradients", 3 * N, V, H, [&] {
      cuda::head_loss<S>(
          launch_, products_,
          {.x = x, .weight = weight, .targets = targets, .scale = 1e-4, .d_x = d_x, .d_weight = d_weight});
    });
    product("head_loss", N, V, H, [&] {
      cuda::head_loss<S>(launch_, products_, {.x = x, .weight = weight, .targets = targets, .scale = 1e-4});
    });
    drop();
  }

  cuda::Device device_;
  cuda::Stream stream_;
  cuda::Scratch scratch_;
  cuda::Launch launch_;
  cuda::Products products_;
  std::vector<std::unique_ptr<cuda::Buffer>> memory_;
  int runs_, seed_ = 0;
  double copy_rate_ = 1, product_rate_ = 1;  ///< GB/s, TFLOP/s
};

}  // namespace

int main(int count, char** arguments) {
  try {
    Benchmark(count > 1 ? std::atoi(arguments[1]) : 15).run(count > 2);
    return 0;
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
