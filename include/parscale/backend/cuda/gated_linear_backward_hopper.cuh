/// The gated MLP's backward on Hopper, from down's output to gate and up: the product's gradient d_out weight
/// never reaches memory. Its epilogue replaces gate and up by their gradients and computes the product again.
#pragma once

#include "gated_linear_hopper.cuh"

namespace parscale::cuda {
namespace hopper {

/// A pair of gates, ups and gradients of the product: becomes the gates' and ups' gradients and the product.
__device__ inline void gated_backward(std::uint32_t& gate, std::uint32_t& up, std::uint32_t& product) {
  const float d[2] = {low_half(product), high_half(product)}, g[2] = {low_half(gate), high_half(gate)},
              u[2] = {low_half(up), high_half(up)};
  const float s[2] = {sigmoid(g[0]), sigmoid(g[1])}, silu[2] = {g[0] * s[0], g[1] * s[1]};
  product = packed(silu[0] * u[0], silu[1] * u[1]);
  gate = packed(d[0] * u[0] * silu_slope(g[0], s[0]), d[1] * u[1] * silu_slope(g[1], s[1]));
  up = packed(d[0] * silu[0], d[1] * silu[1]);
}

/// Gate and up come a panel at a time, are replaced where they lie and leave; the product follows them, then
/// the next panel comes, long before it is needed.
class GatedBackwardEpilogue {
  using Tiles = ProductTiles;
  static constexpr int words = Tiles::columns / 4;

 public:
  static constexpr Major right_major = Major::mn;
  static constexpr int panels = Tiles::columns / panel_columns, phases = 5, slots = phases * panels;

  __device__ GatedBackwardEpilogue(const GatedPlan& plan, ProductShared& shared)
      : plan_(plan), pieces_(shared) {}

  __device__ void begin(const ProductTile& tile) {
    place(tile);
    load_next(-1, nullptr);
  }
  __device__ void take(const float (&sums)[Tiles::columns / 2], const ProductTile& tile) {
#pragma unroll
    for (int i = 0; i < words; ++i) pairs_[i] = packed(sums[2 * i], sums[2 * i + 1]);
    place(tile);
  }
  __device__ void run(int slot, const ProductTile* next) {
    const int panel = slot / phases, phase = slot % phases;
    if (phase == 1) pieces_.wait_loaded();
    if (phase == 1 || phase == 2) replace(panel, phase - 1);
    if (phase == 2) store_gate_up(panel);
    if (phase == 3) store_product(panel);
    if (phase == 4) load_next(panel, next);
  }
  __device__ void end() {
    if (pieces_.leads()) wait_stores();
  }

 private:
  static constexpr int panel_words = 16;

  __device__ void place(const ProductTile& tile) {
    row_ = pieces_.first_row(tile);
    column_ = tile.column * Tiles::columns;
  }
  /// The panel after this one, of the same tile or of the one after it.
  __device__ void load_next(int panel, const ProductTile* next) {
    pieces_.wait_stored();
    if (pieces_.leads()) {
      if (panel + 1 < panels)
        pieces_.load(plan_.gate_up, column_ + (panel + 1) * panel_columns, row_);
      else if (next != nullptr)
        pieces_.load(plan_.gate_up, next->column * Tiles::columns, pieces_.first_row(*next));
    }
    __syncwarp();
  }
  __device__ void replace(int panel, int half) {
#pragma unroll
    for (int i = 2 * half; i < 2 * half + 2; ++i) {
      std::uint32_t gate[4], up[4];
      pieces_.read(0, 16 * i, gate);
      pieces_.read(1, 16 * i, up);
#pragma unroll
      for (int k = 0; k < 4; ++k) gated_backward(gate[k], up[k], pairs_[panel * panel_words + 4 * i + k]);
      pieces_.write(0, 16 * i, gate);
      pieces_.write(1, 16 * i, up);
    }
  }
  __device__ void store_gate_up(int panel) {
    pieces_.publish();
    if (!pieces_.leads()) return;
    for (int i = 0; i < 2; ++i) pieces_.store(i, plan_.gate_up, column_ + panel * panel_columns, row_, i);
    commit_stores();
  }
  __device__ void store_product(int panel) {
    pieces_.wait_stored();
#pragma unroll
    for (int i = 0; i < 4; ++i) pieces_.write(0, 16 * i, pairs_ + panel * panel_words + 4 * i);
    pieces_.publish();
    if (pieces_.leads()) {
      pieces_.store(0, plan_.activated, column_ + panel * panel_columns, row_, 0);
      commit_stores();
    }
    __syncwarp();
  }

  const GatedPlan& plan_;
  ProductPieces pieces_;
  std::uint32_t pairs_[words];
  int row_ = 0, column_ = 0;
};

inline GatedPlan gated_plan(const op::GatedLinearBackward<BFloat16>& a) {
  const Index rows = a.d_out.rows(), width = a.product.cols(), depth = a.d_out.cols();
  GatedPlan plan = gated_plan(a.gate_up, a.product, depth, ProductTiles::columns);
  plan.product.left =
      Matrices{a.d_out.data, rows, depth, depth}.boxes(ProductTiles::depth, ProductTiles::rows);
  plan.product.right = Matrices{a.weight.data, depth, width, width}.boxes(panel_columns, ProductTiles::depth);
  return plan;
}

}  // namespace hopper

/// Whether gated_linear_backward_hopper computes this.
inline bool gated_linear_backward_hopper_takes(const Launch& on, const op::GatedLinearBackward<BFloat16>& a) {
  return hopper::gated_takes<hopper::GatedBackwardEpilogue>(on, a.d_out.rows(), a.product.cols(),
                                                            a.d_out.cols(), a.d_out.data, a.weight.data,
                                                            a.gate_up.data, a.product.data);
}

inline void gated_linear_backward_hopper(const Launch& on, const op::GatedLinearBackward<BFloat16>& a) {
  hopper::launch_gated<hopper::GatedBackwardEpilogue>(on, "gated_linear_backward", hopper::gated_plan(a));
}

}  // namespace parscale::cuda
