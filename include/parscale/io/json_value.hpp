/// A JSON value. Its names are those of nlohmann's library, where it has them; it is our own because that one
/// takes seconds to compile, in every file that can load a model.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <ostream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "../core/error.hpp"

namespace parscale::io {

/// Null, true or false, a number, text, an array or an object. Objects keep the order in which they were
/// written; looking up a key walks through the object, so iterate over large ones (a vocabulary) instead of
/// asking for key after key. Asking for another type than the value has, or for what is not there, throws
/// InputError.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;

  Json() = default;
  Json(std::nullptr_t) {}
  Json(std::same_as<bool> auto value) : kind_(Kind::boolean), number_{.boolean = value} {}
  template <std::unsigned_integral T>
    requires(!std::same_as<T, bool>)
  Json(T value) : kind_(Kind::natural), number_{.natural = value} {}
  Json(std::signed_integral auto value) : kind_(value < 0 ? Kind::negative : Kind::natural) {
    if (value < 0)
      number_.negative = value;
    else
      number_.natural = static_cast<std::uint64_t>(value);
  }
  Json(std::floating_point auto value) : kind_(Kind::real), number_{.real = value} {}
  Json(std::string value) : kind_(Kind::string), string_(std::move(value)) {}
  Json(std::string_view value) : Json(std::string(value)) {}
  Json(const char* value) : Json(std::string(value)) {}
  template <std::convertible_to<Json> T>
  Json(const std::vector<T>& list) : kind_(Kind::array), array_(list.begin(), list.end()) {}
  Json(const std::map<std::string, std::string>& members) : kind_(Kind::object) {
    for (const auto& [name, value] : members) object_.emplace_back(name, value);
  }
  /// {{"name", value}, ...} is an object, any other list an array: {1, 2}.
  Json(std::initializer_list<Json> items) : kind_(Kind::array), array_(items) {
    const auto is_member = [](const Json& item) {
      return item.is_array() && item.size() == 2 && item.array_[0].is_string();
    };
    if (!std::all_of(items.begin(), items.end(), is_member)) return;
    kind_ = Kind::object;
    for (Json& item : array_)
      object_.emplace_back(std::move(item.array_[0].string_), std::move(item.array_[1]));
    array_.clear();
  }

  /// An array of these items, whatever they are.
  static Json array(std::initializer_list<Json> items = {}) {
    Json json;
    json.kind_ = Kind::array;
    json.array_ = items;
    return json;
  }
  static Json object() {
    Json json;
    json.kind_ = Kind::object;
    return json;
  }

  bool is_null() const { return kind_ == Kind::null; }
  bool is_boolean() const { return kind_ == Kind::boolean; }
  bool is_number_unsigned() const { return kind_ == Kind::natural; }
  bool is_number_integer() const { return is_number_unsigned() || kind_ == Kind::negative; }
  bool is_number_float() const { return kind_ == Kind::real; }
  bool is_number() const { return is_number_integer() || is_number_float(); }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_array() const { return kind_ == Kind::array; }
  bool is_object() const { return kind_ == Kind::object; }
  bool is_structured() const { return is_array() || is_object(); }
  const char* type_name() const {
    constexpr const char* names[] = {"null",   "boolean", "number", "number",
                                     "number", "string",  "array",  "object"};
    return names[static_cast<std::size_t>(kind_)];
  }

  /// The value as a bool, a number (converted; an integer must fit), a std::string, or a vector of those.
  template <class T>
  T get() const {
    if constexpr (std::same_as<T, bool>) {
      return need(is_boolean(), "true or false"), number_.boolean;
    } else if constexpr (std::floating_point<T>) {
      return static_cast<T>(real());
    } else if constexpr (std::integral<T>) {
      return integer<T>();
    } else if constexpr (std::same_as<T, std::string>) {
      return text();
    } else {
      need(is_array(), "a list");
      T list;
      for (const Json& item : array_) list.push_back(item.get<typename T::value_type>());
      return list;
    }
  }
  const std::string& text() const { return need(is_string(), "text"), string_; }
  std::string& text() { return need(is_string(), "text"), string_; }
  /// Pairs of name and value.
  const Object& members() const { return need(is_object(), "an object"), object_; }
  Object& members() { return need(is_object(), "an object"), object_; }

  /// Items of an array; nothing for any other value.
  Array::const_iterator begin() const { return array_.begin(); }
  Array::const_iterator end() const { return array_.end(); }
  Array::iterator begin() { return array_.begin(); }
  Array::iterator end() { return array_.end(); }
  /// Items of an array, or members of an object.
  std::size_t size() const { return is_object() ? object_.size() : array_.size(); }
  bool empty() const { return size() == 0; }
  const Json& operator[](std::size_t i) const { return need(i < array_.size(), "a longer list"), array_[i]; }
  Json& operator[](std::size_t i) { return need(i < array_.size(), "a longer list"), array_[i]; }
  /// Makes null an array first.
  Json& push_back(Json item) { return make(Kind::array), array_.emplace_back(std::move(item)); }

  /// A member of an object; null when it has none of this name, or is none.
  const Json* find(std::string_view name) const {
    const auto found = place_of(name);
    return found == object_.end() ? nullptr : &found->second;
  }
  template <class T>
  T value(std::string_view name, T otherwise) const {
    const Json* found = find(name);
    return found == nullptr ? otherwise : found->get<T>();
  }
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  const Json& at(std::string_view name) const {
    const Json* found = find(name);
    need(found != nullptr, "an object with a member of this name");
    return *found;
  }
  const Json& operator[](std::string_view name) const { return at(name); }
  /// The member of this name, appended when it is missing. Makes null an object first.
  Json& operator[](std::string_view name) {
    make(Kind::object);
    const auto found = place_of(name);
    if (found == object_.end()) return object_.emplace_back(name, Json()).second;
    return object_[static_cast<std::size_t>(found - object_.begin())].second;
  }
  void erase(std::string_view name) {
    if (const auto found = place_of(name); found != object_.end()) object_.erase(found);
  }
  void erase(std::size_t i) {
    need(i < array_.size(), "a longer list");
    array_.erase(array_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  /// Takes over the other object's members.
  void update(const Json& other) {
    for (const auto& [name, value] : other.members()) (*this)[name] = value;
  }

  /// The text of the value: on one line, or over several with this indentation. Bytes that are not UTF-8
  /// become U+FFFD, infinity and NaN null. Defined in json_text.hpp.
  std::string dump(int indentation = -1) const;

  friend std::ostream& operator<<(std::ostream& out, const Json& value) { return out << value.dump(); }

  /// Numbers are equal when their values are; objects also in the order of their members.
  friend bool operator==(const Json& a, const Json& b) {
    if (a.is_number() && b.is_number() && a.is_number_float() != b.is_number_float())
      return a.real() == b.real();
    if (a.kind_ != b.kind_) return false;
    if (a.is_boolean()) return a.number_.boolean == b.number_.boolean;
    if (a.is_number_float()) return a.number_.real == b.number_.real;
    if (a.is_number()) return a.number_.natural == b.number_.natural;
    return a.string_ == b.string_ && a.array_ == b.array_ && a.object_ == b.object_;
  }

 private:
  enum class Kind : std::uint8_t { null, boolean, negative, natural, real, string, array, object };

  union Number {
    std::uint64_t natural = 0;
    std::int64_t negative;
    double real;
    bool boolean;
  };

  void need(bool holds, const char* wanted) const {
    if (!holds)
      throw InputError(
          {.what = concat({"A JSON value of another type stands where there should be ", wanted}),
           .why = concat({"it is of type ", type_name()})});
  }
  void make(Kind kind) {
    if (is_null()) kind_ = kind;
    need(kind_ == kind, kind == Kind::array ? "a list" : "an object");
  }

  Object::const_iterator place_of(std::string_view name) const {
    return std::find_if(object_.begin(), object_.end(), [&](const auto& m) { return m.first == name; });
  }

  double real() const {
    need(is_number(), "a number");
    if (is_number_float()) return number_.real;
    return is_number_unsigned() ? static_cast<double>(number_.natural)
                                : static_cast<double>(number_.negative);
  }
  template <class T>
  T integer() const {
    const bool fits = is_number_unsigned() ? std::in_range<T>(number_.natural)
                                           : is_number_integer() && std::in_range<T>(number_.negative);
    need(fits, "a whole number that fits");
    return is_number_unsigned() ? static_cast<T>(number_.natural) : static_cast<T>(number_.negative);
  }

  Kind kind_ = Kind::null;
  Number number_ = {};
  std::string string_ = {};
  Array array_ = {};
  Object object_ = {};
};

}  // namespace parscale::io
