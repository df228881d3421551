/// What attention's kernels do with tiles, whichever arithmetic multiplies them: bring operands into shared
/// memory, hide what a query does not see, write a thread's share of a row.
///
/// FmaTiles and MmaTiles have one face. A block multiplies tiles of `height` rows by tiles of `width` rows:
/// products(scores, a, b) and add_products(sums, weights, b). A thread holds `rows` x `columns` of the scores
/// and `rows` x `features` of the sums; row(i), column(j), feature(c) say which.
#pragma once

#include "attention_fma.cuh"
#include "attention_mma.cuh"
#include "attention_places.cuh"

namespace parscale::cuda {

template <class Tiles, class S>
__device__ void load_keys(typename Tiles::Element* tile, const KeyTile<S>& keys, int dim) {
  Tiles::template load_tile<Tiles::width>(tile, dim, [&](int i) { return keys.key(i); });
  Tiles::commit();
}
template <class Tiles, class S>
__device__ void load_values(typename Tiles::Element* tile, const KeyTile<S>& keys, int dim) {
  Tiles::template load_tile<Tiles::width>(tile, dim, [&](int i) { return keys.value(i); });
  Tiles::commit();
}
/// Rows of queries [first, end) and nothing behind them; place(row, head) says where in `from`.
template <class Tiles, int tile_rows, class S, class Place>
__device__ void load_queries(typename Tiles::Element* tile, const Queries<S>& queries, int first, int end,
                             const S* from, Place place) {
  Tiles::template load_tile<tile_rows>(tile, queries.a.at.dim, [&](int i) {
    const int query = first + i;
    return query < end ? from + place(queries.row(query), queries.head(query)) : nullptr;
  });
}

/// Hides from each row the keys that its query does not see.
template <class Tiles, class S>
__device__ void hide(typename Tiles::Scores& scores, const Queries<S>& queries, int first,
                     const KeyTile<S>& keys) {
#pragma unroll
  for (int i = 0; i < Tiles::rows; ++i) {
    const Seen sees = seen(queries, first + Tiles::row(i), keys, Tiles::width);
#pragma unroll
    for (int j = 0; j < Tiles::columns; ++j)
      if (!sees(Tiles::column(j))) scores[i][j] = -INFINITY;
  }
}

/// to[0 ... D) = a thread's share of a row, times a factor.
template <class Tiles, class T>
__device__ void store_row(const float (&sums)[Tiles::features], float factor, int dim, T* to) {
#pragma unroll
  for (int c = 0; c < Tiles::features; c += 2)
    if (Tiles::feature(c) < dim) store_pair(sums[c] * factor, sums[c + 1] * factor, to + Tiles::feature(c));
}

/// Launches a kernel of these tiles with so many of their elements and further bytes in shared memory.
template <class Tiles, class... Parameters>
void launch_tiles(const Launch& on, const char* operation, void (*kernel)(Parameters...), Index blocks,
                  int elements, int bytes, const std::type_identity_t<Parameters>&... parameters) {
  bytes += elements * static_cast<int>(sizeof(typename Tiles::Element));
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), operation);
  kernel<<<grid_size(blocks), Tiles::threads, static_cast<std::size_t>(bytes), on.stream>>>(parameters...);
  check(cudaGetLastError(), operation);
}

}  // namespace parscale::cuda
