/// A small 64-bit hash for keys and fingerprints: the same on every machine, in every version, not for
/// secrets.
#pragma once

#include <cstdint>
#include <string_view>

namespace parscale::io {

/// Stirs 64 bits so that every input bit moves every output bit; a bijection (the finaliser of SplitMix64).
constexpr std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Collects numbers and texts, in order, into one hash: `Hash().add(seed).add("window").value()`.
class Hash {
 public:
  constexpr Hash& add(std::uint64_t number) {
    state_ = mix(state_ ^ mix(number));
    return *this;
  }
  /// The length goes in as well, so that ("ab", "c") and ("a", "bc") differ.
  constexpr Hash& add(std::string_view text) {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      word = word << 8 | static_cast<unsigned char>(text[i]);
      if (i % 8 == 7) add(word);
    }
    return add(word).add(std::uint64_t{text.size()});
  }
  constexpr std::uint64_t value() const { return state_; }

 private:
  std::uint64_t state_ = 0;
};

}  // namespace parscale::io
