/// One launch over many tensors: each is cut into pieces, a block a piece, so that small tensors cost no
/// launch and large ones no tail of their own.
#pragma once

#include <array>
#include <span>

#include "numbers.cuh"

namespace parscale::cuda {

/// As many tensors as a kernel's parameters hold beside each other. T says what a tensor is.
template <class T, int most>
struct Pieces {
  T tensors[most];
  int first[most + 1];  ///< piece of each tensor's beginning; the last: of all tensors' end
  int count = 0;

  /// The tensor that a piece belongs to.
  __device__ int tensor_of(int piece) const {
    int low = 0, high = count - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (first[middle] <= piece)
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  }
};

/// Calls launch(pieces, pieces' number, first tensor's index) for the tensors, as few times as they fit.
/// `count_of` says how many elements a tensor has; a piece has `piece` of them.
template <class T, int most, class Tensors, class Count, class Make, class LaunchPieces>
void for_pieces(const Tensors& tensors, Index piece, Count count_of, Make make, LaunchPieces launch) {
  for (std::size_t begin = 0; begin < tensors.size(); begin += most) {
    Pieces<T, most> group;
    Index pieces = 0;
    for (std::size_t i = begin; i < std::min(tensors.size(), begin + most); ++i) {
      group.tensors[group.count] = make(tensors[i]);
      group.first[group.count++] = static_cast<int>(pieces);
      pieces += (count_of(tensors[i]) + piece - 1) / piece;
    }
    group.first[group.count] = static_cast<int>(pieces);
    launch(group, static_cast<unsigned>(pieces), begin);
  }
}

}  // namespace parscale::cuda
