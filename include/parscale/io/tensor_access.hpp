/// A model's tensors as files see them: a name, a shape, and functions that copy a stretch of elements,
/// wherever they live. Light: no file format is known here, so the code of an architecture needs nothing of
/// files.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../core/stretch.hpp"
#include "../store/parameter_store.hpp"

namespace parscale::io {

/// `copy_out` and `copy_in` count from the first element that this process owns. `copy_whole` copies elements
/// of the whole tensor, whoever owns them: every process calls it.
template <class T>
struct TensorAccess {
  std::string name;
  std::vector<Index> extent;  ///< of the whole tensor
  Stretch part;               ///< what this process owns of it, last axis fastest
  std::function<void(Index first, std::span<T> out)> copy_out;
  std::function<void(Index first, std::span<const T> in)> copy_in;
  std::function<void(Index first, std::span<T> out)> copy_whole;

  Index count() const {
    Index n = 1;
    for (Index size : extent) n *= size;
    return n;
  }
  /// The owned part, or nothing when that is the whole.
  std::optional<Stretch> owned_part() const {
    return part.count == count() ? std::nullopt : std::optional(part);
  }
  /// Takes what is owned out of the whole tensor's values.
  void put(std::span<const T> whole) const {
    copy_in(0, whole.subspan(static_cast<std::size_t>(part.first), static_cast<std::size_t>(part.count)));
  }
};

/// One part (weight, first or second moment) of every parameter of a model that has it, in the model's order.
/// The model must outlive the result and stay where it is.
template <class Model, class B = typename Model::BackendType, class W = Wide<B>>
std::vector<TensorAccess<W>> tensors_of(Model& model, Part<W> OwnedBy<B>::*part) {
  std::vector<TensorAccess<W>> all;
  model.store().each([&](const OwnedBy<B>& parameter) {
    const Part<W> own = parameter.*part;
    if (own.data == nullptr) return;
    const bool is_weight = part == &OwnedBy<B>::weight;
    const auto stretch = [own](Index first, std::size_t count) {
      return View<W>{own.data + first, {static_cast<Index>(count)}};
    };
    auto& on = model.backend();
    all.push_back(
        {.name = std::string(parameter.name),
         .extent = {parameter.extent.dims.begin(), parameter.extent.dims.begin() + parameter.extent.rank},
         .part = {parameter.offset, own.count()},
         .copy_out =
             [&on, stretch](Index first, std::span<W> out) {
               if (!out.empty()) on.to_host(stretch(first, out.size()), out.data());
             },
         .copy_in =
             [&on, stretch, parameter, is_weight](Index first, std::span<const W> in) {
               if (in.empty()) return;
               if (is_weight)
                 set_weight<B>(parameter, first, in, on);
               else
                 on.from_host(in.data(), stretch(first, in.size()));
             },
         .copy_whole =
             [&model, own, offset = parameter.offset](Index first, std::span<W> out) {
               model.store().gather(own, offset, first, out, model.backend());
             }});
  });
  return all;
}

}  // namespace parscale::io
