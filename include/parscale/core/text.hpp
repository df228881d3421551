/// Texts put together from pieces, for messages and names: concat({"layer ", i, " of ", layers}). Every file
/// that can fail writes some, so this is made to compile to little: a piece is two words, and no text exists
/// before all are joined.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace parscale {

/// A text that outlives the piece, or a number.
class TextPiece {
 public:
  constexpr TextPiece(std::string_view text) : kind_(Kind::text), text_(text) {}
  constexpr TextPiece(const char* text) : TextPiece(std::string_view(text)) {}
  constexpr TextPiece(const std::string& text) : TextPiece(std::string_view(text)) {}
  constexpr TextPiece(std::signed_integral auto number) : kind_(Kind::whole), whole_(number) {}
  constexpr TextPiece(std::unsigned_integral auto number) : kind_(Kind::natural), natural_(number) {}
  constexpr TextPiece(double number) : kind_(Kind::real), real_(number) {}
  TextPiece(char) = delete;
  TextPiece(bool) = delete;

  void append_to(std::string& out) const {
    if (kind_ == Kind::text) out += text_;
    if (kind_ == Kind::whole) append(out, whole_);
    if (kind_ == Kind::natural) append(out, natural_);
    if (kind_ == Kind::real) append(out, real_);
  }

 private:
  enum class Kind : std::uint8_t { text, whole, natural, real };

  /// A real number in as few digits as tell it from its neighbours.
  static void append(std::string& out, auto number) {
    char digits[32];
    out.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
  }

  Kind kind_;
  union {  // NOLINTBEGIN(readability-identifier-naming): private, though a union says otherwise
    std::string_view text_;
    std::int64_t whole_;
    std::uint64_t natural_;
    double real_;
  };  // NOLINTEND(readability-identifier-naming)
};

/// The pieces as one text.
inline std::string concat(std::initializer_list<TextPiece> pieces) {
  std::string text;
  for (const TextPiece& piece : pieces) piece.append_to(text);
  return text;
}

}  // namespace parscale
