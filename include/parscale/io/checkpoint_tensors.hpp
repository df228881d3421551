/// Tensors on their way into a checkpoint and back, bit for bit, wherever they live: the caller hands over
/// functions that copy a stretch of elements, so the memory may be a model's, a shard's or a GPU's.
///
///     weights of the model --copy_out--> piece --> model.safetensors --> piece --copy_in--> weights
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "safetensors_reader.hpp"
#include "safetensors_writer.hpp"

namespace parscale::io {

/// A tensor to be saved. `copy_out(first, out)` fills `out` with the elements [first, first + out.size()),
/// last axis fastest. Stretches come in order, each at most a few MiB.
template <std::floating_point T>
struct TensorSource {
  std::string name;
  std::vector<Index> extent;
  std::function<void(Index first, std::span<T> out)> copy_out;
};

/// A tensor to be restored, the same the other way.
template <std::floating_point T>
struct TensorSink {
  std::string name;
  std::vector<Index> extent;
  std::function<void(Index first, std::span<const T> in)> copy_in;
};

/// The source of a tensor that lies in ordinary memory, which must outlive it.
template <std::floating_point T>
TensorSource<T> source_from(std::string name, std::vector<Index> extent, std::span<const T> memory) {
  return {std::move(name), std::move(extent), [memory](Index first, std::span<T> out) {
            std::copy_n(memory.data() + first, out.size(), out.data());
          }};
}

/// The sink of a tensor that lies in ordinary memory, which must outlive it.
template <std::floating_point T>
TensorSink<T> sink_into(std::string name, std::vector<Index> extent, std::span<T> memory) {
  return {std::move(name), std::move(extent), [memory](Index first, std::span<const T> in) {
            std::copy(in.begin(), in.end(), memory.data() + first);
          }};
}

namespace detail {

/// The type in which T is stored unchanged.
template <std::floating_point T>
inline constexpr Dtype stored_as = sizeof(T) == 8 ? Dtype::f64 : Dtype::f32;

inline constexpr Index elements_in_a_piece = Index{1} << 20;

/// Calls `each(first, count)` for stretches that cover [0, elements) in order.
template <class Each>
void for_each_piece(Index elements, Each&& each) {
  for (Index first = 0; first < elements; first += elements_in_a_piece)
    each(first, std::min(elements_in_a_piece, elements - first));
}

inline Index element_count(const TensorSpec& spec) {
  return static_cast<Index>(checked_bytes(spec) / size_of(spec.dtype));
}

template <std::floating_point T>
TensorSpec spec_of(const TensorSource<T>& tensor) {
  return {tensor.name, stored_as<T>, tensor.extent};
}

}  // namespace detail

/// Bytes of the tensors' values. Throws ConfigurationError for an impossible extent.
template <std::floating_point T>
std::uint64_t bytes_of(const std::vector<TensorSource<T>>& tensors) {
  std::uint64_t sum = 0;
  for (const auto& tensor : tensors) sum += detail::checked_bytes(detail::spec_of(tensor));
  return sum;
}

/// Writes a safetensors file of F32 (T = float) or F64 (double), durable on return. Throws StorageError.
template <std::floating_point T>
void write_tensors(const std::filesystem::path& path, const std::vector<TensorSource<T>>& tensors,
                   const std::map<std::string, std::string>& metadata = {}) {
  std::vector<TensorSpec> specs;
  for (const auto& tensor : tensors) specs.push_back(detail::spec_of(tensor));
  SafetensorsWriter file(path, specs, metadata);
  std::vector<T> buffer;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    detail::for_each_piece(detail::element_count(specs[i]), [&](Index first, Index count) {
      buffer.resize(static_cast<std::size_t>(count));
      tensors[i].copy_out(first, buffer);
      file.write(std::span<const T>(buffer));
    });
  }
  file.finish();
}

namespace detail {

/// How a file differs from what is wanted: the first difference in words, the others as a count.
class Differences {
 public:
  void note(std::string text) {
    if (count_++ == 0) first_ = std::move(text);
  }
  bool any() const { return count_ > 0; }
  std::string text() const {
    if (count_ == 1) return first_;
    return first_ + "; and " + std::to_string(count_ - 1) + " more difference" + (count_ == 2 ? "" : "s");
  }

 private:
  std::size_t count_ = 0;
  std::string first_;
};

inline std::string in_words(Dtype dtype, const std::vector<Index>& shape) {
  return std::string(name_of(dtype)) + " " + to_string(shape);
}

template <std::floating_point T>
Differences differences(const SafetensorsFile& file, const std::vector<TensorSink<T>>& wanted) {
  Differences out;
  std::unordered_set<std::string> names;
  for (const auto& sink : wanted) {
    names.insert(sink.name);
    const TensorInfo* info = file.find(sink.name);
    if (info == nullptr)
      out.note("\"" + sink.name + "\" is not in the checkpoint");
    else if (info->shape != sink.extent || info->dtype != stored_as<T>)
      out.note("\"" + sink.name + "\" is " + in_words(info->dtype, info->shape) + " in the checkpoint and " +
               in_words(stored_as<T>, sink.extent) + " here");
  }
  for (const TensorInfo& info : file.tensors())
    if (names.count(info.name) == 0) out.note("\"" + info.name + "\" is in the checkpoint and not here");
  return out;
}

}  // namespace detail

/// Throws ConfigurationError unless the file holds exactly the wanted tensors: names, shapes and type. The
/// message names the first difference and counts the rest.
template <std::floating_point T>
void check_tensors(const SafetensorsFile& file, const std::vector<TensorSink<T>>& wanted) {
  const auto differences = detail::differences(file, wanted);
  if (differences.any())
    throw ConfigurationError(
        {.what = "The checkpoint belongs to another model or another selection of trained tensors",
         .where = file.path().string(),
         .why = differences.text(),
         .remedy = "resume with the options that the run was started with"});
}

/// Hands every tensor of the file to its sink, after check_tensors(): nothing is copied unless all fits.
template <std::floating_point T>
void read_tensors(const SafetensorsFile& file, const std::vector<TensorSink<T>>& wanted) {
  check_tensors(file, wanted);
  std::vector<T> buffer;
  for (const auto& sink : wanted) {
    const TensorInfo& info = *file.find(sink.name);
    detail::for_each_piece(static_cast<Index>(info.count()), [&](Index first, Index count) {
      buffer.resize(static_cast<std::size_t>(count));
      const std::size_t offset = static_cast<std::size_t>(first) * sizeof(T);
      std::memcpy(buffer.data(), file.bytes(info).data() + offset, buffer.size() * sizeof(T));
      sink.copy_in(first, buffer);
    });
  }
}

}  // namespace parscale::io
