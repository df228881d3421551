/// How a product on Hopper is cut: the tiles of its result, the order in which blocks take them, where the
/// operands lie in shared memory, and the thread that brings them there.
#pragma once

#include "wgmma.cuh"

namespace parscale::cuda::hopper {

struct ProductTiles {
  static constexpr int warpgroups = 2;  ///< that multiply
  static constexpr int threads = (warpgroups + 1) * warpgroup_size, warps = warpgroups * 4;
  static constexpr int loader_registers = 24, registers = 240;
  static constexpr int rows = 128, columns = 256;           ///< of a tile
  static constexpr int depth = 64;                          ///< of a step
  static constexpr int stages = 4;                          ///< steps in shared memory
  static constexpr int blocks = 2;                          ///< of a cluster
  static constexpr int piece_rows = 16;                     ///< rows of a warp, which its epilogue moves
  static constexpr int piece = piece_rows * panel_columns;  ///< elements that it moves at once
};

/// `left` in boxes of 64 k by 128 rows. `right` with Major::k as [2][N/2,K], boxes of 64 k by 128: a tile has
/// the same 128 columns of both halves. With Major::mn as [K,N], boxes of 64 columns by 64 k.
struct ProductPlan {
  CUtensorMap left, right;
  int row_tiles, column_tiles, steps;
  int group;  ///< pairs of row tiles between which the blocks change before they change columns
};

/// The tile of a block: first row, number of the column tile.
struct ProductTile {
  int row, column;

  /// Neighbouring clusters share columns and rows, so that both are read from the L2 cache.
  __device__ ProductTile(const ProductPlan& plan, int number, int rank) {
    const int pairs = (plan.row_tiles + 1) / 2, of_group = plan.group * plan.column_tiles;
    const int first = number / of_group * plan.group, members = min(plan.group, pairs - first);
    const int within = number % of_group;
    row = ((first + within % members) * ProductTiles::blocks + rank) * ProductTiles::rows;
    column = within / members;
  }
};

/// The tiles of this block, one after the other.
class ProductShare {
 public:
  __device__ explicit ProductShare(const ProductPlan& plan)
      : plan_(plan),
        number_(static_cast<int>(blockIdx.x) / ProductTiles::blocks),
        rank_(cluster_rank()),
        count_((plan.row_tiles + 1) / 2 * plan.column_tiles) {}
  __device__ bool any() const { return number_ < count_; }
  __device__ ProductTile tile() const { return {plan_, number_, rank_}; }
  __device__ void advance() { number_ += static_cast<int>(gridDim.x) / ProductTiles::blocks; }

 private:
  const ProductPlan& plan_;
  int number_, rank_, count_;
};

struct ProductShared {
  using Tiles = ProductTiles;
  alignas(1024) __nv_bfloat16 left[Tiles::stages][Tiles::rows * Tiles::depth];
  alignas(1024) __nv_bfloat16 right[Tiles::stages][Tiles::columns * Tiles::depth];
  alignas(1024) __nv_bfloat16 pieces[Tiles::warps][2][Tiles::piece];  ///< the epilogue's
  Barrier full[Tiles::stages], free[Tiles::stages];
  Barrier pieces_full[Tiles::warps];

  __device__ void init() {
    for (Barrier& barrier : full) barrier.init(1);
    for (Barrier& barrier : free) barrier.init(Tiles::warps * Tiles::blocks);
    for (Barrier& barrier : pieces_full) barrier.init(1);
    Barrier::fence_initialised();
  }
};

/// The thread that loads: its block's rows, and half of the columns for both blocks.
template <Major right_major>
class ProductLoader {
  using Tiles = ProductTiles;

 public:
  __device__ ProductLoader(const ProductPlan& plan, ProductShared& shared)
      : plan_(plan), shared_(shared), rank_(cluster_rank()) {}

  __device__ void run(const ProductTile& tile) {
    for (int step = 0; step < plan_.steps; ++step) {
      const int s = place_.stage;
      shared_.free[s].wait(place_.parity ^ 1);
      shared_.full[s].arrive_and_expect(static_cast<int>(sizeof(shared_.left[s]) + sizeof(shared_.right[s])));
      load_box(shared_.left[s], plan_.left, shared_.full[s], step * Tiles::depth, tile.row, 0);
      load_right(tile, step * Tiles::depth, s);
      place_.advance();
    }
  }

 private:
  __device__ void load_right(const ProductTile& tile, int k, int s) {
    constexpr int half = Tiles::columns / 2, both = 3, panel = panel_columns * Tiles::depth;
    __nv_bfloat16* to = shared_.right[s] + rank_ * half * Tiles::depth;
    if constexpr (right_major == Major::k) {
      load_box_for(both, to, plan_.right, shared_.full[s], k, tile.column * half, rank_);
    } else {
      for (int i = 0; i < half / panel_columns; ++i)
        load_box_for(both, to + i * panel, plan_.right, shared_.full[s],
                     tile.column * Tiles::columns + rank_ * half + i * panel_columns, k, 0);
    }
  }

  const ProductPlan& plan_;
  ProductShared& shared_;
  int rank_;
  RingPlace<Tiles::stages> place_;
};

}  // namespace parscale::cuda::hopper
