/// Attention reads prefixes 16 bytes at a time. Where a model's sizes are no multiples of 8, one may begin at
/// any element: it is copied to where it can be read.
#pragma once

#include <cstdint>

#include "pointwise.cuh"

namespace parscale::cuda {

/// The call with a prefix that begins at a multiple of 16 bytes; `aside` holds the copy until the next one.
template <class A>
A with_aligned_prefix(const Launch& on, Scratch& aside, A call) {
  const auto lies_well = [](const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; };
  if (lies_well(call.prefix_k.data) && lies_well(call.prefix_v.data)) return call;
  using S = std::remove_const_t<std::remove_pointer_t<decltype(call.prefix_k.data)>>;
  const Index count = call.prefix_k.count();  // of heads whose size is a multiple of 8
  S* copies = aside.take<S>(2 * count);
  for (auto* prefix : {&call.prefix_k, &call.prefix_v}) {
    const Out<S> copied{copies, prefix->extent};
    copy(on, *prefix, copied);
    *prefix = copied;
    copies += count;
  }
  return call;
}

}  // namespace parscale::cuda
