/// Writing a safetensors file as a stream: the header first, then one tensor after the other in any pieces.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "dtype_convert.hpp"
#include "file.hpp"
#include "json.hpp"
#include "tensor_info.hpp"

namespace parscale::io {

namespace detail {

/// Bytes of a tensor to be written. Throws ConfigurationError for a shape that cannot be.
inline std::uint64_t checked_bytes(const TensorSpec& spec) {
  const auto bytes = bytes_of(spec.dtype, spec.shape);
  if (!bytes)
    throw ConfigurationError({.what = "A tensor to be written has an impossible shape",
                              .where = "tensor \"" + spec.name + "\"",
                              .why = to_string(spec.shape)});
  return *bytes;
}

/// Throws ConfigurationError unless all names differ and none is reserved.
inline void check_names(const std::vector<TensorSpec>& specs) {
  std::unordered_set<std::string_view> names = {"__metadata__"};
  for (const TensorSpec& spec : specs) {
    if (!names.insert(spec.name).second)
      throw ConfigurationError({.what = "A tensor's name is used twice or reserved", .where = spec.name});
  }
}

/// The length, the JSON and the spaces that make both a multiple of 8. Readers look at tensors in place, so
/// each has to begin at a multiple of its element's size.
inline std::string safetensors_header(const std::vector<TensorSpec>& specs,
                                      const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  auto& entries = header.members();  // appending directly avoids a search for every name
  if (!metadata.empty()) entries.emplace_back("__metadata__", metadata);
  std::uint64_t begin = 0;
  for (const TensorSpec& spec : specs) {
    const std::uint64_t end = begin + checked_bytes(spec);
    if (begin % size_of(spec.dtype) != 0)
      throw ConfigurationError({.what = "A tensor would begin at a misaligned place in the file",
                                .where = "tensor \"" + spec.name + "\"",
                                .why = std::string(name_of(spec.dtype)) + " at byte " + std::to_string(begin),
                                .remedy = "write the tensors with larger elements first"});
    Json entry = Json::object();
    entry["dtype"] = name_of(spec.dtype);
    entry["shape"] = spec.shape;
    entry["data_offsets"] = {begin, end};
    entries.emplace_back(spec.name, std::move(entry));
    begin = end;
  }
  std::string text = to_text(header);
  text.append((8 - text.size() % 8) % 8, ' ');
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

}  // namespace detail

/// Writes one file. All tensors are named beforehand; their values follow in that order:
///
///     SafetensorsWriter file("model.safetensors", {{"weight", Dtype::bf16, {2, 3}}, {"bias", Dtype::f32,
///     {2}}}); file.write(std::span<const float>(weight));  // in one piece or in several
///     file.write(std::span<const float>(bias));
///     file.finish();                               // durable from here on
///
/// Never holds more than a piece in memory. Throws StorageError when the disk refuses.
class SafetensorsWriter {
 public:
  /// Throws ConfigurationError before the file is touched: double names, impossible shapes, misaligned order.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> specs,
                    const std::map<std::string, std::string>& metadata = {})
      : specs_(std::move(specs)), file_(start(path, specs_, metadata)), missing_(elements_of(0)) {}

  /// The next elements in specification order, converted to the stored type. A piece lies within one tensor.
  /// Throws ConfigurationError: too many elements, or values that the type cannot hold.
  template <TensorNumber T>
  void write(std::span<const T> values) {
    if (values.empty()) return;
    skip_complete_tensors();
    if (values.size() > missing_) fail_too_many(values.size());
    missing_ -= values.size();
    while (!values.empty()) {
      const auto piece = values.first(std::min(values.size(), piece_elements));
      buffer_.resize(piece.size() * size_of(specs_[current_].dtype));
      encode(specs_[current_].dtype, piece, std::span(buffer_), where());
      file_.write(std::span<const std::byte>(buffer_));
      values = values.subspan(piece.size());
    }
  }

  /// Checks that every tensor is complete, and makes the file durable.
  void finish() {
    skip_complete_tensors();
    if (current_ < specs_.size())
      throw ConfigurationError({.what = "A tensor file is finished before its tensors are complete",
                                .where = where(),
                                .why = std::to_string(missing_) + " elements are missing"});
    file_.close();
  }

 private:
  static constexpr std::size_t piece_elements = std::size_t{1} << 17;

  static OutputFile start(const std::filesystem::path& path, const std::vector<TensorSpec>& specs,
                          const std::map<std::string, std::string>& metadata) {
    detail::check_names(specs);
    const std::string header = detail::safetensors_header(specs, metadata);
    OutputFile file(path);
    file.write(header);
    return file;
  }

  std::uint64_t elements_of(std::size_t tensor) const {
    if (tensor >= specs_.size()) return 0;
    return detail::checked_bytes(specs_[tensor]) / size_of(specs_[tensor].dtype);
  }

  void skip_complete_tensors() {
    while (current_ < specs_.size() && missing_ == 0) missing_ = elements_of(++current_);
  }

  std::string where() const {
    const std::string tensor = current_ < specs_.size() ? ", tensor \"" + specs_[current_].name + "\"" : "";
    return file_.path().string() + tensor;
  }

  [[noreturn]] void fail_too_many(std::size_t count) const {
    throw ConfigurationError(
        {.what = "More elements are written than a tensor file has room for",
         .where = where(),
         .why = std::to_string(count) + " elements, " + std::to_string(missing_) + " missing"});
  }

  std::vector<TensorSpec> specs_;
  OutputFile file_;
  std::size_t current_ = 0;  // the tensor that the next elements belong to
  std::uint64_t missing_;    // its elements still to come
  std::vector<std::byte> buffer_ = {};
};

}  // namespace parscale::io
