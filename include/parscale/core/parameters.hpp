/// Named groups of tensors. A group is a struct template `Weights<Tensor>` with one visitor,
///     static void each(auto&& f, auto&... groups)   // f("q_proj.weight", groups.q_weight...)
/// and that visitor drives init, load, save, count, update and shard alike: the same struct holds extents,
/// weights, gradients and moments.
#pragma once

#include <string>
#include <string_view>

#include "tensor.hpp"

namespace parscale {

/// Calls f with the block's name in front: inside("self_attn", f)("prefix_k", t) is f("self_attn.prefix_k",
/// t).
template <class F>
auto inside(std::string_view block, F& f) {
  return [block = std::string(block), &f](std::string_view name, auto&... tensors) {
    f(block + "." + std::string(name), tensors...);
  };
}

/// Elements of all tensors of a group.
template <class Group>
Index count(const Group& group) {
  Index n = 0;
  Group::each([&](std::string_view, const auto& tensor) { n += tensor.count(); }, group);
  return n;
}

/// Views of the tensors that `extents` describes, one after the other from `base` in visiting order.
template <template <class> class Group, class T>
Group<View<T>> bind(const Group<Extent>& extents, T* base) {
  Group<View<T>> views;
  Group<View<T>>::each(
      [&](std::string_view, const Extent& extent, View<T>& view) {
        view = {extent.count() > 0 ? base : nullptr, extent};
        base += extent.count();
      },
      extents, views);
  return views;
}

}  // namespace parscale
