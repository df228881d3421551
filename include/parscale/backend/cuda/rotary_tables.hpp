/// Cosines and sines of rotary embeddings, kept on the device from call to call. Host code only; rotate.cuh
/// fills and reads them.
#pragma once

#include "runtime.hpp"

namespace parscale::cuda {

class RotaryTables {
 public:
  /// Turns of the first positions: [positions,D/2] pairs of a cosine and a sine.
  struct Table {
    Buffer turns;
    Index positions = 0;
    int head_dim = 0;
    double theta = 0;
  };

  /// Tokens and replicas are turned by tables of their own, whose theta differs.
  Table& of(bool by_replica) { return by_replica ? replicas_ : tokens_; }

 private:
  Table tokens_, replicas_;
};

}  // namespace parscale::cuda
