/// Matrix products by cuBLASLt. Host code only.
///
/// Which of the library's kernels a product takes is measured once for each shape and remembered on disk
/// (cublaslt_choices.hpp): its own first guess is often a tenth slower. Only kernels whose sums have a fixed
/// order are considered.
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cublaslt_choices.hpp"

namespace parscale::cuda {

/// Throws when a call failed; `doing` says what was attempted.
inline void check(cublasStatus_t status, const std::string& doing) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw ConfigurationError(
      {.what = "cuBLASLt failed: " + doing, .why = std::string(cublasLtGetStatusString(status))});
}

/// How float32 products are computed: in float32, or with factors rounded to tf32 (10 bits), many times
/// faster.
enum class Float32Products { exact, tf32 };

struct ProductOptions {
  Float32Products float32 = Float32Products::exact;
  /// Measures shapes that are not remembered yet. Without: the library's first guess.
  bool measure = true;
  ProductChoices::Folder folder = ProductChoices::default_folder();
  std::size_t workspace = std::size_t{64} << 20;
};

/// A row-major factor of a product, rows `stride` elements apart; used as it lies or transposed.
struct Factor {
  const void* data;
  Index stride;
  bool transposed = false;
};

/// out [m,n] = a [m,k] b [k,n] + bias [n] + add [m,n], everything row-major. `add` may be out.
struct Product {
  cudaDataType_t in, out_type;  ///< of a, b; of out, bias, add
  Index m, n, k;
  Factor a, b;
  const void *bias = nullptr, *add = nullptr;
  void* out;

  std::string name() const {
    return "[" + std::to_string(m) + "," + std::to_string(k) + "] x [" + std::to_string(k) + "," +
           std::to_string(n) + "]";
  }
};

namespace detail {

template <class Handle>
struct Destroy {
  using pointer = Handle;
  void operator()(cublasLtHandle_t handle) const { cublasLtDestroy(handle); }
  void operator()(cublasLtMatrixLayout_t layout) const { cublasLtMatrixLayoutDestroy(layout); }
  void operator()(cublasLtMatmulDesc_t description) const { cublasLtMatmulDescDestroy(description); }
  void operator()(cublasLtMatmulPreference_t preference) const {
    cublasLtMatmulPreferenceDestroy(preference);
  }
};
template <class Handle>
using Owner = std::unique_ptr<Handle, Destroy<Handle>>;
using Library = Owner<cublasLtHandle_t>;
using MatrixLayout = Owner<cublasLtMatrixLayout_t>;
using MatmulDescription = Owner<cublasLtMatmulDesc_t>;
using MatmulPreference = Owner<cublasLtMatmulPreference_t>;

/// The library's matrices are column-major, so that a row-major one is its own transpose there.
inline MatrixLayout layout(cudaDataType_t type, Index rows, Index cols, Index stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, type, static_cast<std::uint64_t>(cols),
                                   static_cast<std::uint64_t>(rows), stride),
        "matrix layout");
  return MatrixLayout(layout);
}
inline MatrixLayout layout(cudaDataType_t type, const Factor& factor, Index rows, Index cols) {
  return factor.transposed ? layout(type, cols, rows, factor.stride)
                           : layout(type, rows, cols, factor.stride);
}

/// The largest power of two up to 16 that all addresses are multiples of.
inline std::uint32_t alignment(const Product& p) {
  std::uintptr_t bits = 16;
  for (const void* address : {p.a.data, p.b.data, p.bias, p.add, static_cast<const void*>(p.out)})
    bits |= reinterpret_cast<std::uintptr_t>(address);
  return static_cast<std::uint32_t>(bits & -bits);
}

/// Sorts partly.
inline float median_of_second_half(std::vector<float>& times) {
  const auto at = [&](std::size_t i) { return times.begin() + static_cast<std::ptrdiff_t>(i); };
  const auto middle = at(times.size() * 3 / 4);
  std::nth_element(at(times.size() / 2), middle, times.end());
  return *middle;
}

}  // namespace detail

/// Owns the library's handle, a workspace and what is known about the products met so far.
class Products {
 public:
  /// With tf32 the factors of float32 products are rounded to 10 bits: many times faster.
  explicit Products(const Device& device, bool tf32 = false, const ProductOptions& options = {})
      : tf32_(tf32),
        measure_(options.measure),
        workspace_(options.workspace),
        choices_(device, options.folder) {
    cublasLtHandle_t handle = nullptr;
    check(cublasLtCreate(&handle), "start");
    library_.reset(handle);
  }

  /// Of the workspace, on the device.
  std::size_t bytes() const { return workspace_.size(); }

  void run(const Launch& on, const Product& product) {
    if (product.m == 0 || product.n == 0 || product.k == 0) return;
    const ProductKey key = key_of(product);
    auto found = plans_.find(key);
    if (found == plans_.end()) found = plans_.emplace(key, plan(on, product, key)).first;
    Plan& plan = found->second;
    check(launch(on, plan, plan.algorithm, product, product.out), product.name());
  }

 private:
  struct Plan {
    detail::MatmulDescription description;
    detail::MatrixLayout a, b, out;
    Algorithm algorithm;
  };

  ProductKey key_of(const Product& p) const {
    return {p.in,
            p.out_type,
            p.m,
            p.n,
            p.k,
            p.a.stride,
            p.b.stride,
            p.a.transposed,
            p.b.transposed,
            p.bias != nullptr,
            p.add != nullptr,
            detail::alignment(p),
            tf32_,
            static_cast<Index>(workspace_.size())};
  }

  Plan plan(const Launch& on, const Product& p, const ProductKey& key) {
    Plan plan{.description = describe(p),
              .a = detail::layout(p.in, p.a, p.m, p.k),
              .b = detail::layout(p.in, p.b, p.k, p.n),
              .out = detail::layout(p.out_type, p.m, p.n, p.n),
              .algorithm = {}};
    const bool measure = measure_ && choices_.remembers();
    if (measure && choices_.find(key, plan.algorithm) && usable(plan)) return plan;
    const std::vector<Algorithm> candidates = propose(plan, p, measure ? 24 : 1);
    plan.algorithm = candidates.front();
    if (!measure || candidates.size() == 1) return plan;
    if (const auto best = fastest(on, plan, p, candidates))
      plan.algorithm = choices_.keep(key, *best, plan.algorithm);
    return plan;
  }

  detail::MatmulDescription describe(const Product& p) const {
    const bool tf32 = p.in == CUDA_R_32F && tf32_;
    cublasLtMatmulDesc_t handle = nullptr;
    check(cublasLtMatmulDescCreate(&handle, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                   CUDA_R_32F),
          "product");
    detail::MatmulDescription description(handle);
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
      check(cublasLtMatmulDescSetAttribute(handle, attribute, &value, sizeof(value)), "product");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);  // out^T = b^T a^T
    set(CUBLASLT_MATMUL_DESC_TRANSB, p.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (p.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, p.out_type);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    }
    return description;
  }

  /// The library's candidates, the one that it thinks best first. A sum that is split is put together from a
  /// workspace in order, never in place.
  std::vector<Algorithm> propose(const Plan& plan, const Product& p, int most) const {
    cublasLtMatmulPreference_t handle = nullptr;
    check(cublasLtMatmulPreferenceCreate(&handle), "preference");
    const detail::MatmulPreference preference(handle);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(handle, attribute, &value, sizeof(value)), "preference");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_.size()));
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    for (const auto side :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      set(side, detail::alignment(p));
    const auto results = std::make_unique<cublasLtMatmulHeuristicResult_t[]>(static_cast<std::size_t>(most));
    int found = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(library_.get(), plan.description.get(), plan.b.get(), plan.a.get(),
                                       plan.out.get(), plan.out.get(), handle, most, results.get(), &found);
    check(found > 0 || status != CUBLAS_STATUS_SUCCESS ? status : CUBLAS_STATUS_NOT_SUPPORTED, p.name());
    std::vector<Algorithm> algorithms;
    for (int i = 0; i < found; ++i) {
      const auto& result = results[static_cast<std::size_t>(i)];
      if (result.state == CUBLAS_STATUS_SUCCESS) algorithms.push_back({result.algo});
    }
    check(algorithms.empty() ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS, p.name());
    return algorithms;
  }

  bool usable(const Plan& plan) const {
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(library_.get(), plan.description.get(), plan.b.get(), plan.a.get(),
                                   plan.out.get(), plan.out.get(), &plan.algorithm.value,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= workspace_.size();
  }

  /// The candidate with the smallest median time. They take turns, and the first half of the rounds only
  /// warms the GPU up: a long run's clock is lower than a short one's, and candidates differ in what it costs
  /// them. What `out` holds is left alone when it is also added; else the product itself overwrites it
  /// afterwards. Nothing when there is no memory to measure in.
  std::optional<Algorithm> fastest(const Launch& on, const Plan& plan, const Product& p,
                                   const std::vector<Algorithm>& candidates) const {
    const std::size_t bytes = static_cast<std::size_t>(p.m * p.n) * (p.out_type == CUDA_R_32F ? 4 : 2);
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "free memory");
    if (p.add == p.out && free < bytes + (bytes >> 3U)) return std::nullopt;
    Buffer aside(p.add == p.out ? bytes : 0);
    void* out = p.add == p.out ? aside.data() : p.out;
    std::vector<std::vector<float>> times(candidates.size());
    const Stopwatch stopwatch(on.stream);
    const auto round = [&] {
      float sum = 0;
      for (std::size_t i = 0; i < candidates.size(); ++i) {
        cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
        const float time = stopwatch.time([&] { status = launch(on, plan, candidates[i], p, out); });
        times[i].push_back(status == CUBLAS_STATUS_SUCCESS ? time : std::numeric_limits<float>::infinity());
        sum += time;
      }
      return sum;
    };
    round();  // loads the kernels
    const int rounds = static_cast<int>(std::clamp(300 / round(), 10.0F, 100.0F));
    for (int i = 0; i < rounds; ++i) round();
    std::vector<float> medians;
    for (auto& of : times) medians.push_back(detail::median_of_second_half(of));
    return candidates[static_cast<std::size_t>(std::min_element(medians.begin(), medians.end()) -
                                               medians.begin())];
  }

  cublasStatus_t launch(const Launch& on, const Plan& plan, const Algorithm& algorithm, const Product& p,
                        void* out) const {
    if (p.bias != nullptr)
      check(cublasLtMatmulDescSetAttribute(plan.description.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias,
                                           sizeof(p.bias)),
            "bias");
    const float one = 1, keep = p.add != nullptr ? 1 : 0;
    return cublasLtMatmul(library_.get(), plan.description.get(), &one, p.b.data, plan.b.get(), p.a.data,
                          plan.a.get(), &keep, p.add != nullptr ? p.add : out, plan.out.get(), out,
                          plan.out.get(), &algorithm.value, const_cast<std::byte*>(workspace_.data()),
                          workspace_.size(), on.stream);
  }

  bool tf32_, measure_;
  Buffer workspace_;
  ProductChoices choices_;
  detail::Library library_;
  std::map<ProductKey, Plan> plans_;
};

}  // namespace parscale::cuda
