/// Tensors on their way into a checkpoint and back, bit for bit, wherever they live: the caller hands over
/// functions that copy a stretch of elements, so the memory may be a model's, a shard's or a GPU's.
///
///     weights of the model --copy_out--> piece --> model.safetensors --> piece --copy_in--> weights
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "../core/stretch.hpp"
#include "safetensors_reader.hpp"
#include "safetensors_writer.hpp"

namespace parscale::io {

/// The elements of a tensor that a process owns, last axis fastest; nothing: all of them.
using OwnedPart = std::optional<Stretch>;

/// A tensor to be saved. `copy_out(first, out)` fills `out` with the elements [first, first + out.size()) of
/// the tensor or, when a part of it is owned, of the part. Stretches come in order, each at most a few MiB.
template <std::floating_point T>
struct TensorSource {
  std::string name;
  std::vector<Index> extent;
  std::function<void(Index first, std::span<T> out)> copy_out;
  OwnedPart part = {};
};

/// A tensor to be restored, the same the other way.
template <std::floating_point T>
struct TensorSink {
  std::string name;
  std::vector<Index> extent;
  std::function<void(Index first, std::span<const T> in)> copy_in;
  OwnedPart part = {};
};

/// The source of a tensor that lies in ordinary memory, which must outlive it.
template <std::floating_point T>
TensorSource<T> source_from(std::string name, std::vector<Index> extent, std::span<const T> memory) {
  return {
      std::move(name), std::move(extent),
      [memory](Index first, std::span<T> out) { std::copy_n(memory.data() + first, out.size(), out.data()); },
      std::nullopt};
}

/// The sink of a tensor that lies in ordinary memory, which must outlive it.
template <std::floating_point T>
TensorSink<T> sink_into(std::string name, std::vector<Index> extent, std::span<T> memory) {
  return {std::move(name), std::move(extent),
          [memory](Index first, std::span<const T> in) {
            std::copy(in.begin(), in.end(), memory.data() + first);
          },
          std::nullopt};
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

/// A part has lost its tensor's shape.
template <std::floating_point T>
TensorSpec spec_of(const TensorSource<T>& tensor) {
  return {tensor.name, stored_as<T>, tensor.part ? std::vector{tensor.part->count} : tensor.extent};
}

}  // namespace detail

/// Bytes of the values, those of other processes' parts included. Throws ConfigurationError for an impossible
/// extent.
template <std::floating_point T>
std::uint64_t bytes_of(const std::vector<TensorSource<T>>& tensors) {
  std::uint64_t sum = 0;
  for (const auto& tensor : tensors)
    sum += detail::checked_bytes({tensor.name, detail::stored_as<T>, tensor.extent});
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

}  // namespace detail

/// The file or files of one kind of tensors in a checkpoint: whole tensors in one, or each rank's parts in
/// its own, which follow each other in rank order.
class TensorParts {
 public:
  /// `<stem>.safetensors`, or `<stem>-rank-0-of-3.safetensors` and its fellows. Throws InputError.
  TensorParts(const std::filesystem::path& checkpoint, const std::string& stem) {
    const auto whole = checkpoint / part_file(stem, 0, 1);
    int world = 1;
    if (!std::filesystem::exists(whole)) world = world_of(checkpoint, stem);
    for (int rank = 0; rank < world; ++rank)
      files_.push_back(std::make_unique<SafetensorsFile>(checkpoint / part_file(stem, rank, world)));
  }

  static std::string part_file(const std::string& stem, int rank, int world) {
    if (world == 1) return stem + ".safetensors";
    return stem + "-rank-" + std::to_string(rank) + "-of-" + std::to_string(world) + ".safetensors";
  }

  std::filesystem::path path() const { return files_.front()->path(); }
  std::vector<const SafetensorsFile*> files() const {
    std::vector<const SafetensorsFile*> all;
    for (const auto& file : files_) all.push_back(file.get());
    return all;
  }

 private:
  static int world_of(const std::filesystem::path& checkpoint, const std::string& stem) {
    const std::string begin = stem + "-rank-0-of-";
    for (const auto& entry : std::filesystem::directory_iterator(checkpoint)) {
      const std::string name = entry.path().filename();
      if (name.starts_with(begin)) return std::atoi(name.c_str() + begin.size());
    }
    return 1;  // opening the one file says that it is missing
  }

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
};

namespace detail {

using FileList = std::vector<const SafetensorsFile*>;

/// Whether the file or files hold the tensor as it is wanted; notes it if not.
template <std::floating_point T>
void compare(const FileList& files, const TensorSink<T>& sink, Differences& out) {
  const TensorSpec wanted{sink.name, stored_as<T>, sink.extent};
  std::uint64_t elements = 0;
  for (const SafetensorsFile* file : files) {
    const TensorInfo* info = file->find(sink.name);
    if (info == nullptr) return out.note("\"" + sink.name + "\" is not in the checkpoint");
    if (info->dtype != stored_as<T> || (files.size() == 1 && info->shape != sink.extent))
      return out.note("\"" + sink.name + "\" is " + in_words(info->dtype, info->shape) +
                      " in the checkpoint and " + in_words(stored_as<T>, sink.extent) + " here");
    elements += info->count();
  }
  if (elements != static_cast<std::uint64_t>(element_count(wanted)))
    out.note("\"" + sink.name + "\" has " + std::to_string(elements) + " elements in the checkpoint and is " +
             in_words(stored_as<T>, sink.extent) + " here");
}

template <std::floating_point T>
Differences differences(const FileList& files, const std::vector<TensorSink<T>>& wanted) {
  Differences out;
  std::unordered_set<std::string> names;
  for (const auto& sink : wanted) {
    names.insert(sink.name);
    compare(files, sink, out);
  }
  for (const TensorInfo& info : files.front()->tensors())
    if (names.count(info.name) == 0) out.note("\"" + info.name + "\" is in the checkpoint and not here");
  return out;
}

template <std::floating_point T>
void check_tensors(const FileList& files, const std::vector<TensorSink<T>>& wanted) {
  const auto differences = detail::differences(files, wanted);
  if (differences.any())
    throw ConfigurationError(
        {.what = "The checkpoint belongs to another model or another selection of trained tensors",
         .where = files.front()->path().string(),
         .why = differences.text(),
         .remedy = "resume with the options that the run was started with"});
}

/// Hands the sink what it owns of the stored elements `stored` of its tensor, which `info` describes.
template <std::floating_point T>
void read_stored(const SafetensorsFile& file, const TensorInfo& info, const Stretch& stored,
                 const TensorSink<T>& sink, const Stretch& own, std::vector<T>& buffer) {
  const Stretch both = own.meet(stored);
  for_each_piece(both.count, [&](Index first, Index count) {
    buffer.resize(static_cast<std::size_t>(count));
    const auto offset = static_cast<std::size_t>(both.first - stored.first + first) * sizeof(T);
    std::memcpy(buffer.data(), file.bytes(info).data() + offset, buffer.size() * sizeof(T));
    sink.copy_in(both.first - own.first + first, buffer);
  });
}

template <std::floating_point T>
void read_tensors(const FileList& files, const std::vector<TensorSink<T>>& wanted) {
  check_tensors(files, wanted);
  std::vector<T> buffer;
  for (const auto& sink : wanted) {
    const Stretch all{0, element_count({sink.name, stored_as<T>, sink.extent})};
    Index first = 0;
    for (const SafetensorsFile* file : files) {
      const TensorInfo& info = *file->find(sink.name);
      const Stretch stored{first, static_cast<Index>(info.count())};
      read_stored(*file, info, stored, sink, sink.part.value_or(all), buffer);
      first += stored.count;
    }
  }
}

}  // namespace detail

/// Throws ConfigurationError unless the files hold exactly the wanted tensors: names, shapes and type. The
/// message names the first difference and counts the rest.
template <std::floating_point T>
void check_tensors(const SafetensorsFile& file, const std::vector<TensorSink<T>>& wanted) {
  detail::check_tensors({&file}, wanted);
}
template <std::floating_point T>
void check_tensors(const TensorParts& parts, const std::vector<TensorSink<T>>& wanted) {
  detail::check_tensors(parts.files(), wanted);
}

/// Hands every tensor, or the owned part of it, to its sink, after check_tensors(): nothing is copied unless
/// all fits.
template <std::floating_point T>
void read_tensors(const SafetensorsFile& file, const std::vector<TensorSink<T>>& wanted) {
  detail::read_tensors({&file}, wanted);
}
template <std::floating_point T>
void read_tensors(const TensorParts& parts, const std::vector<TensorSink<T>>& wanted) {
  detail::read_tensors(parts.files(), wanted);
}

}  // namespace parscale::io
