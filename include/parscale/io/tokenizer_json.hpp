/// Access to the objects of a tokenizer.json: what is missing, of the wrong type or not supported is an error
/// that names its place.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "../core/error.hpp"
#include "json.hpp"
#include "json_fields.hpp"

namespace parscale::io {

/// A JSON object that describes a part of a tokenizer, and its place in the file.
class TokenizerJson {
 public:
  /// `where` names the place in errors. Throws InputError when `value` is not an object.
  TokenizerJson(const Json& value, std::string where) : fields_(value, std::move(where)) {}

  /// Entries that may be absent.
  const JsonFields& fields() const { return fields_; }
  const std::string& where() const { return fields_.where(); }
  const Json* find(const std::string& key) const { return fields_.find(key); }

  /// Entries that must not be. Throws InputError, also for another type.
  const Json& at(const std::string& key) const {
    const Json* found = find(key);
    if (found == nullptr) refuse("lacks \"" + key + "\"", "");
    return *found;
  }
  bool flag(const std::string& key) const { return at(key), fields_.flag_or(key, false); }
  std::string text(const std::string& key) const { return at(key), fields_.text_or(key, ""); }
  const Json& array(const std::string& key) const {
    if (!at(key).is_array()) refuse("has a \"" + key + "\" that is not an array", at(key).type_name());
    return at(key);
  }
  TokenizerJson object(const std::string& key) const { return {at(key), where() + ", " + key}; }

  /// Calls f(TokenizerJson) for the objects of an array.
  template <class F>
  void for_each(const std::string& key, F&& f) const {
    std::size_t i = 0;
    for (const Json& entry : array(key))
      f(TokenizerJson(entry, where() + ", " + key + "[" + std::to_string(i++) + "]"));
  }

  /// Throws InputError about this object: "This part of the tokenizer <problem>".
  [[noreturn]] void refuse(const std::string& problem, const std::string& why,
                           const std::string& remedy = "") const {
    throw InputError(
        {.what = "This part of the tokenizer " + problem, .where = where(), .why = why, .remedy = remedy});
  }

  /// Throws InputError: components of this type are not supported.
  [[noreturn]] void refuse_type(const std::string& supported) const {
    refuse("is of a type that is not supported", "its type is \"" + text("type") + "\"",
           "supported are: " + supported);
  }

 private:
  JsonFields fields_;
};

}  // namespace parscale::io
