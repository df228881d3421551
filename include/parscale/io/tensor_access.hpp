/// A model's tensors as files see them: a name, a shape, and functions that copy a stretch of elements,
/// wherever they live. Light: no file format is known here, so the code of an architecture needs nothing of
/// files.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "../core/tensor.hpp"
#include "../store/parameter_store.hpp"

namespace parscale::io {

template <class T>
struct TensorAccess {
  std::string name;
  std::vector<Index> extent;
  std::function<void(Index first, std::span<T> out)> copy_out;
  std::function<void(Index first, std::span<const T> in)> copy_in;

  Index count() const {
    Index n = 1;
    for (Index size : extent) n *= size;
    return n;
  }
};

/// One part (weight, first or second moment) of every parameter of a model that has it, in the model's order.
/// The model must outlive the result and stay where it is.
template <class Model, class B = typename Model::BackendType, class W = Wide<B>>
std::vector<TensorAccess<W>> tensors_of(Model& model, View<W> OwnedBy<B>::*part) {
  std::vector<TensorAccess<W>> all;
  model.store().each([&](const OwnedBy<B>& parameter) {
    const View<W> view = parameter.*part;
    if (!view) return;
    const bool is_weight = part == &OwnedBy<B>::weight;
    const auto stretch = [view](Index first, std::size_t count) {
      return View<W>{view.data + first, {static_cast<Index>(count)}};
    };
    auto& on = model.backend();
    all.push_back({std::string(parameter.name),
                   {view.extent.dims.begin(), view.extent.dims.begin() + view.extent.rank},
                   [&on, stretch](Index first, std::span<W> out) {
                     on.to_host(stretch(first, out.size()), out.data());
                   },
                   [&on, stretch, parameter, is_weight](Index first, std::span<const W> in) {
                     if (is_weight)
                       set_weight<B>(parameter, first, in, on);
                     else
                       on.from_host(in.data(), stretch(first, in.size()));
                   }});
  });
  return all;
}

}  // namespace parscale::io
