/// Typed access to the fields of a JSON object: a wrong type is an error that names file and key, never a
/// silent conversion. null counts as absent, as it does for Hugging Face.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../config.hpp"
#include "json.hpp"

namespace parscale::io {

/// The fields of one object. Every getter throws InputError when the field has another type; the forms with a
/// default return it when the field is absent.
class JsonFields {
 public:
  /// `where` names the object in errors. Throws InputError unless it is an object.
  JsonFields(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {
    if (!object.is_object())
      throw InputError({.what = "A JSON object is needed here",
                        .where = where_,
                        .why = concat({"it is ", shown(object)})});
  }

  const std::string& where() const { return where_; }
  std::string where(std::string_view key) const { return concat({where_, ", key ", key}); }

  /// Null when absent.
  const Json* find(std::string_view key) const {
    const Json* found = object_->find(key);
    return found == nullptr || found->is_null() ? nullptr : found;
  }

  /// A whole number in [least, most]; 4.0 is none.
  Index integer(std::string_view key, Index least,
                Index most = std::numeric_limits<std::int32_t>::max()) const {
    return whole(key, required(key), least, most);
  }
  Index integer_or(std::string_view key, Index otherwise, Index least,
                   Index most = std::numeric_limits<std::int32_t>::max()) const {
    const Json* value = find(key);
    return value == nullptr ? otherwise : whole(key, *value, least, most);
  }

  double number_or(std::string_view key, double otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number()) fail(key, "a number", *value);
    return value->get<double>();
  }

  bool flag_or(std::string_view key, bool otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail(key, "true or false", *value);
    return value->get<bool>();
  }

  std::string text_or(std::string_view key, std::string_view otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return std::string(otherwise);
    if (!value->is_string()) fail(key, "text", *value);
    return value->get<std::string>();
  }

  /// A list of whole numbers; nothing when absent. One number alone is a list of one where `or_one` allows
  /// it.
  std::optional<std::vector<std::int32_t>> integers(std::string_view key, bool or_one = false) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    std::vector<std::int32_t> list;
    if (or_one && !value->is_array()) return std::vector{id(key, *value)};
    if (!value->is_array()) fail(key, "a list of whole numbers", *value);
    for (const Json& item : *value) list.push_back(id(key, item));
    return list;
  }

  [[noreturn]] void fail(std::string_view key, std::string_view wanted, const Json& value) const {
    throw InputError({.what = concat({key, " must be ", wanted}),
                      .where = where_,
                      .why = concat({"it is ", shown(value)})});
  }

 private:
  const Json& required(std::string_view key) const {
    const Json* value = find(key);
    if (value == nullptr)
      throw InputError({.what = concat({"The key ", key, " is missing"}), .where = where_});
    return *value;
  }

  Index whole(std::string_view key, const Json& value, Index least, Index most) const {
    const bool beyond = value.is_number_unsigned() && !std::in_range<Index>(value.get<std::uint64_t>());
    if (!value.is_number_integer() || beyond || value.get<Index>() < least || value.get<Index>() > most)
      fail(key, concat({"a whole number from ", least, " to ", most}), value);
    return value.get<Index>();
  }
  std::int32_t id(std::string_view key, const Json& value) const {
    return static_cast<std::int32_t>(whole(key, value, 0, std::numeric_limits<std::int32_t>::max()));
  }

  const Json* object_;
  std::string where_;
};

}  // namespace parscale::io
