/// The gated MLP's first linear layer on Hopper with the activation in its epilogue: a warp has the same
/// columns of gate and up. What is rounded where is as if product and activation were operations of their
/// own.
#pragma once

#include "../backend.hpp"
#include "pointwise.cuh"
#include "product_hopper.cuh"

namespace parscale::cuda {
namespace hopper {

/// Boxes of gate_up as [2][M,I] and of the product as [1][M,I]: 64 columns by 16 rows.
struct GatedPlan {
  ProductPlan product;
  CUtensorMap gate_up, activated;
};

/// silu(gate) up for two neighbours.
__device__ inline std::uint32_t gated(std::uint32_t gate, std::uint32_t up) {
  return packed(silu(low_half(gate)) * low_half(up), silu(high_half(gate)) * high_half(up));
}

class GatedEpilogue {
  using Tiles = ProductTiles;
  static constexpr int words = Tiles::columns / 4;  // pairs of a thread: half are gates, half ups

 public:
  static constexpr Major right_major = Major::k;
  static constexpr int panels = 2, slots = 3 * panels;

  __device__ GatedEpilogue(const GatedPlan& plan, ProductShared& shared) : plan_(plan), pieces_(shared) {}

  __device__ void begin(const ProductTile&) {}
  __device__ void take(const float (&sums)[Tiles::columns / 2], const ProductTile& tile) {
#pragma unroll
    for (int i = 0; i < words; ++i) pairs_[i] = packed(sums[2 * i], sums[2 * i + 1]);
    row_ = pieces_.first_row(tile);
    column_ = tile.column * Tiles::columns / 2;
  }
  __device__ void run(int slot, const ProductTile*) {
    const int panel = slot / 3;
    if (slot % 3 == 0) return store_gate_up(panel);
    activate(panel, slot % 3 - 1);
    if (slot % 3 == 2) store_product(panel);
  }
  __device__ void end() {
    if (pieces_.leads()) wait_stores();
  }

 private:
  static constexpr int panel_words = 16;

  __device__ std::uint32_t* gates(int panel) { return pairs_ + panel * panel_words; }
  __device__ std::uint32_t* ups(int panel) { return pairs_ + words / 2 + panel * panel_words; }

  __device__ void store_gate_up(int panel) {
    pieces_.wait_stored();
    write(0, gates(panel));
    write(1, ups(panel));
    pieces_.publish();
    if (!pieces_.leads()) return;
    for (int i = 0; i < 2; ++i) pieces_.store(i, plan_.gate_up, column_ + panel * panel_columns, row_, i);
    commit_stores();
  }
  /// Half of a panel: gates become products.
  __device__ void activate(int panel, int half) {
#pragma unroll
    for (int i = half * panel_words / 2; i < (half + 1) * panel_words / 2; ++i)
      gates(panel)[i] = gated(gates(panel)[i], ups(panel)[i]);
  }
  __device__ void store_product(int panel) {
    pieces_.wait_stored();
    write(0, gates(panel));
    pieces_.publish();
    if (pieces_.leads()) {
      pieces_.store(0, plan_.activated, column_ + panel * panel_columns, row_, 0);
      commit_stores();
    }
    __syncwarp();
  }
  __device__ void write(int piece, const std::uint32_t* pairs) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) pieces_.write(piece, 16 * i, pairs + 4 * i);
  }

  const GatedPlan& plan_;
  ProductPieces pieces_;
  std::uint32_t pairs_[words];
  int row_ = 0, column_ = 0;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900  // their kernel is empty, and they know no clusters
#define PARSCALE_CLUSTERS_OF(blocks)
#else
#define PARSCALE_CLUSTERS_OF(blocks) __cluster_dims__(blocks, 1, 1)
#endif

template <class Epilogue>
__global__ void PARSCALE_CLUSTERS_OF(ProductTiles::blocks) __launch_bounds__(ProductTiles::threads, 1)
    gated_kernel(const __grid_constant__ GatedPlan plan) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL  // other targets of one build get an empty kernel, which no call reaches
  extern __shared__ __align__(1024) std::uint8_t memory[];
  multiply_tiles<Epilogue>(plan, *reinterpret_cast<ProductShared*>(memory));
#endif
}

/// All but the factors.
inline GatedPlan gated_plan(Out<BFloat16> gate_up, Out<BFloat16> product, Index depth, int tile_columns) {
  const Index rows = product.rows(), width = product.cols();
  GatedPlan plan{};
  plan.gate_up =
      Matrices{gate_up.data, rows, width, 2 * width, 2, width}.boxes(panel_columns, ProductTiles::piece_rows);
  plan.activated = Matrices{product.data, rows, width, width}.boxes(panel_columns, ProductTiles::piece_rows);
  plan.product.row_tiles = tiles_of(rows, ProductTiles::rows);
  plan.product.column_tiles = tiles_of(width, tile_columns);
  plan.product.steps = tiles_of(depth, ProductTiles::depth);
  plan.product.group = 8;
  return plan;
}

template <class Epilogue>
void launch_gated(const Launch& on, const char* operation, const GatedPlan& plan) {
  constexpr int shared = static_cast<int>(sizeof(ProductShared));
  check(cudaFuncSetAttribute(gated_kernel<Epilogue>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
        operation);
  const int clusters = std::min((plan.product.row_tiles + 1) / 2 * plan.product.column_tiles,
                                on.multiprocessors / ProductTiles::blocks);
  gated_kernel<Epilogue>
      <<<static_cast<unsigned>(clusters * ProductTiles::blocks), ProductTiles::threads, shared, on.stream>>>(
          plan);
  check(cudaGetLastError(), operation);
}

inline GatedPlan gated_plan(const op::GatedLinear<BFloat16>& a) {
  const Index rows = a.x.rows(), width = a.product.cols(), depth = a.x.cols();
  constexpr int half = ProductTiles::columns / 2;
  GatedPlan plan = gated_plan(a.gate_up, a.product, depth, half);
  plan.product.left = Matrices{a.x.data, rows, depth, depth}.boxes(ProductTiles::depth, ProductTiles::rows);
  plan.product.right =
      Matrices{a.weight.data, width, depth, depth, 2, width * depth}.boxes(ProductTiles::depth, half);
  return plan;
}

/// Whether the copy engine takes these sizes, and there is enough to do for every multiprocessor.
template <class Epilogue, class... T>
bool gated_takes(const Launch& on, Index rows, Index width, Index depth, const T*... tensors) {
  return on.compute_capability == 90 && rows >= 1024 && width >= 256 && width % pack_of<BFloat16> == 0 &&
         depth > Epilogue::slots * ProductTiles::depth && packs<BFloat16>(depth, tensors...);
}

}  // namespace hopper

/// Whether gated_linear_hopper computes this.
inline bool gated_linear_hopper_takes(const Launch& on, const op::GatedLinear<BFloat16>& a) {
  return hopper::gated_takes<hopper::GatedEpilogue>(on, a.x.rows(), a.product.cols(), a.x.cols(), a.x.data,
                                                    a.weight.data, a.gate_up.data, a.product.data);
}

inline void gated_linear_hopper(const Launch& on, const op::GatedLinear<BFloat16>& a) {
  hopper::launch_gated<hopper::GatedEpilogue>(on, "gated_linear", hopper::gated_plan(a));
}

}  // namespace parscale::cuda
