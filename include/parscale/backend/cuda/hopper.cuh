/// Hopper's own instructions (sm_90a), wrapped: barriers in shared memory, tiles moved by the copy engine,
/// and their order with respect to the tensor cores. wgmma.cuh multiplies what is loaded here.
///
/// Tiles in shared memory have rows of 64 bfloat16 (128 bytes) and are swizzled: the 16-byte pieces of a row
/// are permuted by the row's number modulo 8. A wider tile is several such panels, one after the other. Every
/// panel begins at a multiple of 1024 bytes.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

#include "numbers.cuh"

namespace parscale::cuda::hopper {

inline constexpr int warpgroup_size = 128;
inline constexpr int panel_columns = 64;  ///< bfloat16 in a row of a swizzled tile
inline constexpr int row_bytes = 128;     ///< of a swizzled tile

/// The number of this thread's warpgroup, known to the compiler to be the same in a whole warp.
__device__ inline int warpgroup_index() {
  return __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / warpgroup_size, 0);
}

/// An address as instructions on shared memory take it.
__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// The byte at which a swizzled panel (from its beginning) has this byte of this row.
__host__ __device__ constexpr int swizzled(int row, int byte) {
  return row * row_bytes + (byte ^ ((row % 8) * 16));
}

// ---- order

/// Shared memory that this thread wrote by ordinary stores may be read by tensor cores and the copy engine
/// after the next barrier.
__device__ inline void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// A barrier of `threads` threads of a block among 16 (0 is __syncthreads). `arrive` does not wait.
__device__ inline void sync_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void arrive_threads(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

/// Registers a thread of this warpgroup, a multiple of 8; every warp of it must ask.
template <int Count>
__device__ void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}
template <int Count>
__device__ void drop_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}

/// True in one thread of a converged warp.
__device__ inline bool elected() {
  std::uint32_t one = 0;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(one));
  return one != 0;
}

/// An mbarrier in shared memory: a phase ends when all arrivals and all bytes expected have come.
class Barrier {
 public:
  /// One thread; then fence_initialised() and a barrier of the block.
  __device__ void init(int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address()), "r"(arrivals) : "memory");
  }
  __device__ static void fence_initialised() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address()) : "memory");
  }
  /// Arrives, and lets this phase wait for bytes that the copy engine brings.
  __device__ void arrive_and_expect(int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address()), "r"(bytes)
                 : "memory");
  }
  /// Waits for the end of the phase of this parity: 0 for the first, 1 for the second, ... A fresh barrier
  /// lets pass who waits for 1.
  __device__ void wait(int parity) {
    while (!ended(parity)) {
    }
  }
  __device__ bool ended(int parity) {
    std::uint32_t done = 0;
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(address()), "r"(parity)
        : "memory");
    return done != 0;
  }
  __device__ std::uint32_t address() const { return shared_address(this); }

 private:
  std::uint64_t state_;
};

/// The place in a ring of `Stages` buffers, and the parity of its present round.
template <int Stages>
struct RingPlace {
  int stage = 0, parity = 0;

  __device__ void advance() {
    if (++stage == Stages) stage = 0, parity ^= 1;
  }
};

// ---- clusters: blocks that run together and reach each other's shared memory

/// The number of this block in its cluster.
__device__ inline int cluster_rank() {
  int rank = 0;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/// All threads of all blocks of the cluster: none goes on, or ends, before every one has come.
__device__ inline void sync_cluster() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
/// Where another block of the cluster has what this one has at `address` in shared memory.
__device__ inline std::uint32_t address_in_block(std::uint32_t address, int rank) {
  std::uint32_t there = 0;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
/// Arrives at a barrier of any block of the cluster.
__device__ inline void arrive_in_cluster(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// ---- the copy engine

/// How the copy engine sees a tensor of bfloat16 or float: fastest axis first, strides in bytes of all axes
/// but the first, and the box that one instruction moves. What lies outside is read as zero and never
/// written.
template <int Rank>
struct Boxes {
  const void* data;
  std::uint64_t sizes[Rank];
  std::uint64_t strides[Rank - 1];
  std::uint32_t box[Rank];
  CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B;
};

/// The driver's encoder, found at run time: programs need not link libcuda.
inline auto tensor_map_encoder() {
  using Encoder = decltype(&cuTensorMapEncodeTiled);
  static const Encoder encoder = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
        "looking up cuTensorMapEncodeTiled");
    if (found == nullptr)
      throw ConfigurationError({.what = "The CUDA driver is too old for the copy engine"});
    return reinterpret_cast<Encoder>(found);
  }();
  return encoder;
}

/// A kernel takes it as a `const __grid_constant__ CUtensorMap` parameter.
template <int Rank>
CUtensorMap tensor_map(const Boxes<Rank>& of) {
  CUtensorMap map;
  std::uint32_t steps[Rank];
  for (std::uint32_t& step : steps) step = 1;
  const CUresult result =
      tensor_map_encoder()(&map, of.type, Rank, const_cast<void*>(of.data), of.sizes, of.strides, of.box,
                           steps, CU_TENSOR_MAP_INTERLEAVE_NONE, of.swizzle,
                           CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw ConfigurationError({.what = "The copy engine does not take this tensor",
                              .why = "cuTensorMapEncodeTiled answers " + std::to_string(result)});
  return map;
}

__device__ inline void prefetch(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// Brings the box that begins at these coordinates into shared memory; one thread. Its bytes, outside ones
/// included, count on the barrier.
__device__ inline void load_box(void* to, const CUtensorMap& map, Barrier& barrier, int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(barrier.address()), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
__device__ inline void load_box(void* to, const CUtensorMap& map, Barrier& barrier, int c0, int c1, int c2,
                                int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
      "%6}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(barrier.address()), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}

/// A policy of the L2 cache for what is moved once: it leaves first.
__device__ inline std::uint64_t evict_first() {
  std::uint64_t policy = 0;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ inline void load_box(void* to, const CUtensorMap& map, Barrier& barrier, int c0, int c1, int c2,
                                std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared_address(to)),
      "l"(&map), "r"(barrier.address()), "r"(c0), "r"(c1), "r"(c2), "l"(policy)
      : "memory");
}
/// load_box into the same place of every block of the cluster whose bit is set in `blocks`; each one's bytes
/// count on its own barrier at the same place.
__device__ inline void load_box_for(std::uint16_t blocks, void* to, const CUtensorMap& map, Barrier& barrier,
                                    int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared_address(to)),
      "l"(&map), "r"(barrier.address()), "r"(c0), "r"(c1), "r"(c2), "h"(blocks)
      : "memory");
}

/// Writes a box out of shared memory; one thread, after fence_async_proxy() and a barrier of the writers.
__device__ inline void store_box(const void* from, const CUtensorMap& map, int c0, int c1, int c2) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map),
               "r"(shared_address(from)), "r"(c0), "r"(c1), "r"(c2)
               : "memory");
}
__device__ inline void store_box(const void* from, const CUtensorMap& map, int c0, int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(&map),
      "r"(shared_address(from)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}

__device__ inline void store_box(const void* from, const CUtensorMap& map, int c0, int c1, int c2,
                                 std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group.L2::cache_hint [%0, {%2, %3, %4}], [%1], %5;" ::
          "l"(&map),
      "r"(shared_address(from)), "r"(c0), "r"(c1), "r"(c2), "l"(policy)
      : "memory");
}

/// Plain bytes, multiples of 16 at addresses that are multiples of 16; one thread.
__device__ inline void load_bytes(void* to, const void* from, int bytes, Barrier& barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(to)),
      "l"(from), "r"(bytes), "r"(barrier.address())
      : "memory");
}
__device__ inline void store_bytes(void* to, const void* from, int bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to),
               "r"(shared_address(from)), "r"(bytes)
               : "memory");
}
/// to[i] += from[i], float by float: their order is not fixed when several blocks add to one place.
__device__ inline void add_floats(float* to, const float* from, int bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
               "r"(shared_address(from)), "r"(bytes)
               : "memory");
}

/// Stores that this thread began since the last commit are one group.
__device__ inline void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// At most `Left` groups still read their shared memory.
template <int Left = 0>
__device__ void wait_stores_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Left) : "memory");
}
/// At most `Left` groups are not yet written.
template <int Left = 0>
__device__ void wait_stores() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(Left) : "memory");
}

}  // namespace parscale::cuda::hopper
