/// Products on Hopper whose results are not written but handed to an epilogue, in registers: left [M,K] times
/// right [K,N], bfloat16, summed in float32.
///
/// A block stays for as many tiles of 128 x 256 as it gets. One of its warpgroups loads with the copy engine,
/// two others multiply 64 rows each. Two blocks form a cluster, share the columns and load half of them each,
/// for both. The epilogue of a tile runs in slots, between the steps of the next tile's product: the tensor
/// cores wait only while sums are rounded into other registers.
#pragma once

#include "../../core/bfloat16.hpp"
#include "mma.cuh"
#include "product_hopper_tiles.cuh"

namespace parscale::cuda::hopper {

/// A multiplying warpgroup: the sums of 64 rows of a tile.
template <Major right_major>
class ProductMultiplier {
  using Tiles = ProductTiles;
  static constexpr int panel_bytes = Tiles::depth * row_bytes;  // of a right operand with Major::mn

 public:
  __device__ ProductMultiplier(const ProductPlan& plan, ProductShared& shared, int warpgroup)
      : shared_(shared),
        steps_(plan.steps),
        left_(operand(shared.left[0] + warpgroup * (Tiles::rows / Tiles::warpgroups) * Tiles::depth)),
        right_(operand(shared.right[0], right_major == Major::k ? 16 : panel_bytes)),
        lane_(static_cast<int>(threadIdx.x) % warp_size),
        free_(address_in_block(shared.free[0].address(), lane_ % Tiles::blocks)) {}

  /// The sums of one tile; in between, `slots` calls of between(number). At least that many steps and one.
  template <int slots, class F>
  __device__ void run(float (&sums)[Tiles::columns / 2], F between) {
    const int spacing = (steps_ - 1) / (slots > 0 ? slots : 1);
    issue<true>(sums);
#pragma unroll
    for (int slot = 0; slot < slots; ++slot) {
      continue_for(spacing - 1, sums);
      issue<false>(sums);
      release_previous();
      between(slot);
    }
    continue_for(steps_ - 1 - slots * spacing, sums);
    wait_products<0>(sums);
    release((place_.stage + Tiles::stages - 1) % Tiles::stages);
  }

 private:
  __device__ void continue_for(int steps, float (&sums)[Tiles::columns / 2]) {
    for (int step = 0; step < steps; ++step) {
      issue<false>(sums);
      release_previous();
    }
  }
  /// Starts the next step's products.
  template <bool first>
  __device__ void issue(float (&sums)[Tiles::columns / 2]) {
    const int s = place_.stage;
    shared_.full[s].wait(place_.parity);
    fence_registers();
#pragma unroll
    for (int i = 0; i < Tiles::depth / 16; ++i)
      multiply<Major::k, right_major>(sums,
                                      further(left_, s * static_cast<int>(sizeof(shared_.left[0])) +
                                                         k_step_bytes<Major::k>(i, Tiles::rows)),
                                      further(right_, s * static_cast<int>(sizeof(shared_.right[0])) +
                                                          k_step_bytes<right_major>(i, Tiles::columns)),
                                      !first || i > 0);
    commit_products();
    place_.advance();
  }
  /// The stage before the one of the last issue, once its products have ended.
  __device__ void release_previous() {
    wait_products<1>();
    release((place_.stage + Tiles::stages - 2) % Tiles::stages);
  }
  /// Both blocks' loaders may fill a stage when all warps of both have read it.
  __device__ void release(int stage) {
    if (lane_ < Tiles::blocks)
      arrive_in_cluster(free_ + static_cast<std::uint32_t>(stage * static_cast<int>(sizeof(Barrier))));
  }

  ProductShared& shared_;
  int steps_;
  std::uint64_t left_, right_;
  int lane_;
  std::uint32_t free_;
  RingPlace<Tiles::stages> place_;
};

/// What both epilogues do: a warp's 16 rows of a tile, rounded, leave and come in pieces of 64 columns.
class ProductPieces {
  using Tiles = ProductTiles;

 public:
  __device__ explicit ProductPieces(ProductShared& shared)
      : lane_(static_cast<int>(threadIdx.x) % warp_size),
        warp_(static_cast<int>(threadIdx.x) / warp_size),
        pieces_(shared.pieces[warp_][0]),
        full_(shared.pieces_full[warp_]) {
    const int row = lane_ % 16;
    matrices_ = shared_address(pieces_) + static_cast<std::uint32_t>(row * row_bytes);
    column_ = static_cast<std::uint32_t>((lane_ / 16 ^ row % 8) * 16);
  }

  __device__ int first_row(const ProductTile& tile) const { return tile.row + warp_ * Tiles::piece_rows; }

  /// 16 columns of one of the two pieces, as accumulators lie in registers.
  __device__ void read(int piece, int columns, std::uint32_t (&pairs)[4]) const {
    load_matrices(pairs, place(piece, columns));
  }
  __device__ void write(int piece, int columns, const std::uint32_t* pairs) const {
    store_matrices(place(piece, columns), pairs[0], pairs[1], pairs[2], pairs[3]);
  }

  /// After all lanes have written; `store(piece)` by one lane.
  __device__ void publish() const {
    fence_async_proxy();
    __syncwarp();
  }
  __device__ bool leads() const { return lane_ == 0; }
  __device__ void store(int piece, const CUtensorMap& map, int c0, int c1, int c2) const {
    store_box(pieces_ + piece * Tiles::piece, map, c0, c1, c2, evict_first());
  }
  /// Until the pieces stored so far may be overwritten.
  __device__ void wait_stored() const {
    if (leads()) wait_stores_read();
    __syncwarp();
  }
  /// By one lane: both pieces are filled anew.
  __device__ void load(const CUtensorMap& map, int c0, int c1) const {
    full_.arrive_and_expect(2 * Tiles::piece * 2);
    for (int piece = 0; piece < 2; ++piece)
      load_box(pieces_ + piece * Tiles::piece, map, full_, c0, c1, piece, evict_first());
  }
  __device__ void wait_loaded() {
    full_.wait(parity_);
    parity_ ^= 1;
  }

 private:
  __device__ std::uint32_t place(int piece, int columns) const {
    return matrices_ + static_cast<std::uint32_t>(piece * Tiles::piece * 2) +
           (column_ ^ static_cast<std::uint32_t>(columns * 2));
  }

  int lane_, warp_;
  __nv_bfloat16* pieces_;
  Barrier& full_;
  std::uint32_t matrices_, column_;
  int parity_ = 0;
};

/// The kernel's body: Epilogue says the order of `right` and takes the sums.
template <class Epilogue, class Plan>
__device__ void multiply_tiles(const Plan& plan, ProductShared& shared) {
  using Tiles = ProductTiles;
  if (threadIdx.x == 0) shared.init();
  sync_cluster();
  const int warpgroup = warpgroup_index();
  ProductShare share(plan.product);
  if (warpgroup == Tiles::warpgroups) {
    drop_registers<Tiles::loader_registers>();
    if (threadIdx.x % warpgroup_size == 0) {
      ProductLoader<Epilogue::right_major> loader(plan.product, shared);
      for (; share.any(); share.advance()) loader.run(share.tile());
    }
  } else {
    raise_registers<Tiles::registers>();
    ProductMultiplier<Epilogue::right_major> multiplier(plan.product, shared, warpgroup);
    Epilogue epilogue(plan, shared);
    float sums[Tiles::columns / 2];
    if (share.any()) {
      epilogue.begin(share.tile());
      multiplier.template run<0>(sums, [](int) {});
      for (;;) {
        epilogue.take(sums, share.tile());
        share.advance();
        if (!share.any()) break;
        const ProductTile next = share.tile();
        multiplier.template run<Epilogue::slots>(sums, [&](int slot) { epilogue.run(slot, &next); });
      }
#pragma unroll
      for (int slot = 0; slot < Epilogue::slots; ++slot) epilogue.run(slot, nullptr);
      epilogue.end();
    }
  }
  sync_cluster();  // the other block may still signal this one
}

/// `count` matrices [rows,columns] that begin `apart` elements after each other, rows `stride` apart.
struct Matrices {
  const BFloat16* data;
  Index rows, columns, stride, count = 1, apart = 0;

  CUtensorMap boxes(int box_columns, int box_rows) const {
    const auto u = [](Index n) { return static_cast<std::uint64_t>(n); };
    return tensor_map<3>(
        {.data = data,
         .sizes = {u(columns), u(rows), u(count)},
         .strides = {u(stride) * 2, u(count == 1 ? stride : apart) * 2},
         .box = {static_cast<std::uint32_t>(box_columns), static_cast<std::uint32_t>(box_rows), 1}});
  }
};

inline int tiles_of(Index count, int tile) { return static_cast<int>((count + tile - 1) / tile); }

}  // namespace parscale::cuda::hopper
