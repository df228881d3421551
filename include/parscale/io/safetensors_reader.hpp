/// Reading a safetensors file: 8 bytes with the header's length, a JSON header, the tensors' bytes without
/// gaps. Opening checks all of it; afterwards every access is inside the file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dtype_convert.hpp"
#include "file.hpp"
#include "json.hpp"
#include "tensor_info.hpp"

namespace parscale::io {

namespace detail {

/// Headers beyond this are taken for damage, as everywhere in the safetensors world.
inline constexpr std::uint64_t longest_safetensors_header = 100'000'000;

/// Turns the bytes of a file into checked tensor descriptions. Throws InputError, naming file and tensor.
class SafetensorsHeader {
 public:
  SafetensorsHeader(std::span<const std::byte> bytes, std::string file)
      : bytes_(bytes), file_(std::move(file)) {
    const Json header = parse_json(header_text(), concat({file_, " (header)"}));
    if (!header.is_object()) fail("The safetensors header is not a JSON object", type_of(header));
    for (const auto& [name, value] : header.members()) {
      if (name == "__metadata__") {
        read_metadata(value);
      } else {
        tensors.push_back(tensor(name, value));
      }
    }
    check_that_tensors_fill_the_data();
  }

  std::vector<TensorInfo> tensors = {};  ///< in the order of their bytes
  std::map<std::string, std::string> metadata = {};
  std::span<const std::byte> data = {};  ///< what follows the header

 private:
  std::string_view header_text() {
    std::uint64_t length = 0;
    if (bytes_.size() < sizeof length)
      fail("The file is too short for a safetensors file", concat({bytes_.size(), " bytes"}), damaged);
    std::memcpy(&length, bytes_.data(), sizeof length);
    if (length > longest_safetensors_header)
      fail("The safetensors header is impossibly long", concat({length, " bytes"}),
           "check that this is a safetensors file at all");
    const auto rest = bytes_.subspan(sizeof length);
    if (length > rest.size())
      fail("The file ends inside the safetensors header",
           concat({"the header has ", length, " bytes, the file has ", rest.size(), " after its length"}),
           damaged);
    data = rest.subspan(static_cast<std::size_t>(length));
    return {reinterpret_cast<const char*>(rest.data()), static_cast<std::size_t>(length)};
  }

  void read_metadata(const Json& value) {
    if (!value.is_object()) fail("__metadata__ is not a JSON object", type_of(value));
    for (const auto& [key, text] : value.members()) {
      if (!text.is_string())
        fail("__metadata__ holds something other than text",
             concat({"\"", key, "\" is a JSON ", text.type_name()}));
      metadata.emplace(key, text.text());
    }
  }

  TensorInfo tensor(const std::string& name, const Json& value) const {
    if (!value.is_object()) fail_tensor(name, "A tensor's description is not a JSON object", type_of(value));
    TensorInfo info{.name = name};
    info.dtype = dtype(name, field(name, value, "dtype"));
    for (const Json& size : array(name, "shape", field(name, value, "shape"))) {
      const std::uint64_t n = whole_number(name, "shape", size);
      if (n > static_cast<std::uint64_t>(std::numeric_limits<Index>::max()))
        fail_tensor(name, "A tensor's size is impossibly large", concat({n}));
      info.shape.push_back(static_cast<Index>(n));
    }
    const Json& offsets = array(name, "data_offsets", field(name, value, "data_offsets"));
    if (offsets.size() != 2)
      fail_tensor(name, "data_offsets needs two numbers", concat({"it has ", offsets.size()}));
    info.begin = whole_number(name, "data_offsets", offsets[0]);
    info.end = whole_number(name, "data_offsets", offsets[1]);
    check_range(info);
    return info;
  }

  const Json& field(const std::string& name, const Json& value, const char* key) const {
    const Json* found = value.find(key);
    if (found == nullptr) fail_tensor(name, concat({"A tensor has no ", key}), "the header lacks this field");
    return *found;
  }

  Dtype dtype(const std::string& name, const Json& value) const {
    if (!value.is_string()) fail_tensor(name, "A tensor's dtype is not text", type_of(value));
    const auto& text = value.text();
    const auto dtype = dtype_named(text);
    if (!dtype) fail_tensor(name, "A tensor has an unknown dtype", concat({"\"", text, "\""}));
    return *dtype;
  }

  const Json& array(const std::string& name, const char* key, const Json& value) const {
    if (!value.is_array()) fail_tensor(name, concat({key, " is not an array"}), type_of(value));
    return value;
  }

  std::uint64_t whole_number(const std::string& name, const char* key, const Json& value) const {
    if (!value.is_number_unsigned())
      fail_tensor(name, concat({key, " holds something other than a whole number from 0 up"}), shown(value));
    return value.get<std::uint64_t>();
  }

  void check_range(const TensorInfo& info) const {
    const std::string range = concat({"bytes ", info.begin, " to ", info.end});
    if (info.begin > info.end) fail_tensor(info.name, "A tensor ends before it begins", range);
    if (info.end > data.size())
      fail_tensor(info.name, "A tensor reaches beyond the end of the file",
                  concat({range, " of ", data.size()}), damaged);
    const auto needed = bytes_of(info.dtype, info.shape);
    const std::string shape = concat({name_of(info.dtype), " ", to_string(info.shape)});
    if (!needed) fail_tensor(info.name, "A tensor's shape is impossibly large", shape);
    if (*needed != info.end - info.begin)
      fail_tensor(info.name, "A tensor's bytes do not match its shape",
                  concat({shape, " needs ", *needed, " bytes, data_offsets give ", info.end - info.begin}));
  }

  void check_that_tensors_fill_the_data() {
    std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::uint64_t filled = 0;
    for (const TensorInfo& info : tensors) {
      if (info.begin != filled)
        fail_tensor(info.name,
                    info.begin < filled ? "Two tensors overlap" : "Bytes before a tensor belong to no tensor",
                    concat({"it begins at byte ", info.begin, ", the tensors before it end at ", filled}));
      filled = info.end;
    }
    if (filled < data.size())
      fail("Bytes at the end of the file belong to no tensor",
           concat({"the tensors end at byte ", filled, " of ", data.size()}));
  }

  static std::string type_of(const Json& value) { return concat({"it is a JSON ", value.type_name()}); }

  [[noreturn]] void fail(const char* what, const std::string& why, const char* remedy = "") const {
    throw InputError({.what = what, .where = file_, .why = why, .remedy = remedy});
  }
  [[noreturn]] void fail_tensor(const std::string& name, std::string_view what, std::string_view why,
                                const char* remedy = "") const {
    throw InputError({.what = std::string(what),
                      .where = concat({file_, ", tensor \"", name, "\""}),
                      .why = std::string(why),
                      .remedy = remedy});
  }

  static constexpr const char* damaged = "the file may be incomplete: download or copy it again";

  std::span<const std::byte> bytes_;
  std::string file_;
};

}  // namespace detail

/// A safetensors file, mapped into memory and checked to its last byte when it is opened. Reading is const
/// and may happen on several threads at once.
class SafetensorsFile {
 public:
  /// Throws InputError, each kind of damage with its own words.
  explicit SafetensorsFile(const std::filesystem::path& path) : path_(path), map_(path) {
    detail::SafetensorsHeader header(map_.bytes(), path.string());
    tensors_ = std::move(header.tensors);
    metadata_ = std::move(header.metadata);
    data_ = header.data;
    for (std::size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
  }

  const std::filesystem::path& path() const { return path_; }
  /// In the order of their bytes.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// Null when the file has no such tensor.
  const TensorInfo* find(std::string_view name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &tensors_[found->second];
  }

  /// The stored bytes, at any alignment. `info` is one of tensors().
  std::span<const std::byte> bytes(const TensorInfo& info) const {
    return data_.subspan(static_cast<std::size_t>(info.begin),
                         static_cast<std::size_t>(info.end - info.begin));
  }

  /// A whole tensor, converted. Throws ConfigurationError unless `out` has room for exactly its elements, and
  /// InputError as decode() does.
  template <TensorNumber T>
  void read(const TensorInfo& info, std::span<T> out) const {
    if (out.size() != info.count()) fail_size(info, out.size(), 0);
    read_part(info, 0, out);
  }

  /// The `out.size()` elements from `first` on, in the order of the file (last axis fastest).
  template <TensorNumber T>
  void read_part(const TensorInfo& info, std::size_t first, std::span<T> out) const {
    if (first > info.count() || out.size() > info.count() - first) fail_size(info, out.size(), first);
    const std::size_t size = size_of(info.dtype);
    decode(info.dtype, bytes(info).subspan(first * size, out.size() * size), out, where(info));
  }

  /// "model.safetensors, tensor "x"", for messages.
  std::string where(const TensorInfo& info) const {
    return concat({path_.native(), ", tensor \"", info.name, "\""});
  }

 private:
  [[noreturn]] void fail_size(const TensorInfo& info, std::size_t asked, std::size_t first) const {
    throw ConfigurationError(
        {.what = "A tensor is read into a buffer of another size",
         .where = where(info),
         .why = concat({asked, " elements from ", first, " on are asked for, it has ", info.count()})});
  }

  std::filesystem::path path_;
  MappedFile map_;
  std::vector<TensorInfo> tensors_ = {};
  std::map<std::string, std::size_t, std::less<>> by_name_ = {};
  std::map<std::string, std::string> metadata_ = {};
  std::span<const std::byte> data_ = {};
};

}  // namespace parscale::io
