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
  template <class... Why>
  const Operands& rule(bool holds, const Why&... why) const {
    if (!holds) fail(why...);
    return *this;
  }

 private:
  template <class T>
  const Operands& present(const char* name, const View<T>& v) const {
    return rule(v.data != nullptr || v.count() == 0, name, " ", v.extent, " has no memory");
  }
  void mismatch(const char* name, const Extent& got, const Extent& wanted) const {
    fail(name, " is ", got, ", the other operands need ", wanted);
  }
  template <class... Why>
  [[noreturn]] void fail(const Why&... why) const {
    std::string text;
    (append(text, why), ...);
    throw ConfigurationError(
        {.what = std::string("Operands of ") + operation_ + " do not fit together", .why = text});
  }
  static void append(std::string& text, const char* words) { text += words; }
  static void append(std::string& text, Index number) { text += std::to_string(number); }
  static void append(std::string& text, const Extent& extent) { text += to_string(extent); }

  const char* operation_;
};

}  // namespace parscale
