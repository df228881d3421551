/// Errors for operands that do not fit together: what the operation is called, what it got, what it needs.
#pragma once

#include <string>

#include "backend.hpp"

namespace parscale {

/// Checks operands of one operation against the sizes that the others imply.
class Operands {
 public:
  explicit Operands(const char* operation) : operation_(operation) {}

  template <class T>
  const Operands& matrix(const char* name, const View<T>& v, Index rows, Index cols) const {
    if (v.count() != rows * cols || (v.count() > 0 && v.cols() != cols))
      mismatch(name, v.extent, {rows, cols});
    return present(name, v);
  }
  template <class T>
  const Operands& vector(const char* name, const View<T>& v, Index count) const {
    if (v.count() != count) mismatch(name, v.extent, {count});
    return present(name, v);
  }
  template <class T>
  const Operands& tensor(const char* name, const View<T>& v, const Extent& wanted) const {
    if (v.extent != wanted) mismatch(name, v.extent, wanted);
    return present(name, v);
  }
  template <class T>
  const Operands& optional_matrix(const char* name, const View<T>& v, Index rows, Index cols) const {
    return v ? matrix(name, v, rows, cols) : *this;
  }
  template <class T>
  const Operands& optional_vector(const char* name, const View<T>& v, Index count) const {
    return v ? vector(name, v, count) : *this;
  }
  /// `why` are texts, numbers and extents; they become a sentence only when the rule is broken.
  const Operands& rule(bool holds, const auto&... why) const {
    if (!holds) fail({piece(why)...});
    return *this;
  }

 private:
  template <class T>
  const Operands& present(const char* name, const View<T>& v) const {
    return rule(v.data != nullptr || v.count() == 0, name, " ", v.extent, " has no memory");
  }
  void mismatch(const char* name, const Extent& got, const Extent& wanted) const {
    fail({name, " is ", to_string(got), ", the other operands need ", to_string(wanted)});
  }
  [[noreturn]] void fail(std::initializer_list<TextPiece> why) const {
    throw ConfigurationError(
        {.what = concat({"Operands of ", operation_, " do not fit together"}), .why = concat(why)});
  }
  static TextPiece piece(TextPiece why) { return why; }
  static std::string piece(const Extent& extent) { return to_string(extent); }

  const char* operation_;
};

}  // namespace parscale
