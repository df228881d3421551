/// What a model is: its Architecture (compile time, decides structure) and its Shape (run time, decides
/// size). Every rule about either stands in this file.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/error.hpp"

namespace parscale {

/// Sizes and indices, 64 bits everywhere.
using Index = std::int64_t;

/// How the replicas of one position talk to each other (arXiv 2505.10475 has none).
enum class CrossAttention : std::uint8_t {
  none,      ///< the published ParScale model
  expanded,  ///< self-attention also sees the other replicas' keys of its own position; one softmax
  sublayer,  ///< a residual sublayer of its own before self-attention: P x P attention at each position
};

constexpr const char* name_of(CrossAttention kind) {
  switch (kind) {
    case CrossAttention::none:
      return "none";
    case CrossAttention::expanded:
      return "expanded";
    case CrossAttention::sublayer:
      return "sublayer";
  }
  return "unknown";
}

/// A set of decoder layers, usable inside a template argument.
/// `{}` and `LayerSet::every()` mean every layer; `{0, 4, 8}` means these; `LayerSet::at_run_time()` leaves
/// the list to Shape::cross_layers. Four scalar words instead of an array: nvcc prints arrays inside template
/// arguments as invalid C++.
struct LayerSet {
  enum class Rule : std::uint8_t { every_layer, listed, at_run_time, out_of_range };
  static constexpr int capacity = 256;

  Rule rule = Rule::every_layer;
  std::uint64_t word0 = 0, word1 = 0, word2 = 0, word3 = 0;

  constexpr LayerSet() = default;
  constexpr LayerSet(Rule r, std::uint64_t w0, std::uint64_t w1, std::uint64_t w2, std::uint64_t w3)
      : rule(r), word0(w0), word1(w1), word2(w2), word3(w3) {}
  constexpr LayerSet(std::initializer_list<int> layers) : rule(Rule::listed) {
    for (int layer : layers) {
      if (layer < 0 || layer >= capacity) {
        *this = LayerSet(Rule::out_of_range, 0, 0, 0, 0);
        return;
      }
      word(layer / 64) |= std::uint64_t{1} << (layer % 64);
    }
  }
  static constexpr LayerSet every() { return {}; }
  static constexpr LayerSet at_run_time() { return {Rule::at_run_time, 0, 0, 0, 0}; }

  constexpr bool contains(Index layer) const {
    if (rule == Rule::every_layer) return true;
    if (layer < 0 || layer >= capacity) return false;
    const int i = static_cast<int>(layer);
    return (LayerSet(*this).word(i / 64) >> (i % 64) & 1) != 0;
  }
  constexpr bool operator==(const LayerSet&) const = default;

 private:
  constexpr std::uint64_t& word(int i) { return i == 0 ? word0 : i == 1 ? word1 : i == 2 ? word2 : word3; }
};

/// What is fixed when the model is compiled. A structural type: `CausalLM<Architecture{.head_dim = 64},
/// ...>`.
struct Architecture {
  int head_dim = 64;  ///< D, features of one attention head
  int replicas = 1;   ///< P; 1 is plain Qwen2
  CrossAttention cross_attention = CrossAttention::none;
  LayerSet cross_layers = {};  ///< which layers cross; `{}`: every layer

  constexpr bool operator==(const Architecture&) const = default;
};

/// The rules of an Architecture, a static_assert each.
template <Architecture arch>
struct ArchitectureRules {
  static_assert(arch.head_dim >= 8 && arch.head_dim <= 256 && arch.head_dim % 8 == 0,
                "parscale: head_dim must be a multiple of 8 between 8 and 256");
  static_assert(arch.replicas >= 1 && arch.replicas <= 64, "parscale: replicas must be between 1 and 64");
  static_assert(arch.cross_layers.rule != LayerSet::Rule::out_of_range,
                "parscale: cross_layers may name layers 0 to 255 only");
  static_assert(arch.cross_layers == LayerSet{} || arch.cross_attention != CrossAttention::none,
                "parscale: cross_layers needs cross_attention = CrossAttention::expanded or ::sublayer");
  static constexpr bool hold = true;
};

/// Architectures that mean the same model become the same type: one replica has nobody to cross to.
constexpr Architecture canonical(Architecture arch) {
  if (arch.replicas == 1 || arch.cross_attention == CrossAttention::none) {
    arch.cross_attention = CrossAttention::none;
    arch.cross_layers = {};
  }
  return arch;
}

/// Sizes and constants of a model, from its config.json. Axis letters as in the docs:
/// H hidden, I intermediate, A query heads, G key/value heads, V vocabulary, T prefix tokens, L layers.
struct Shape {
  Index layers = 0;          ///< L
  Index hidden = 0;          ///< H
  Index intermediate = 0;    ///< I
  Index heads = 0;           ///< A
  Index kv_heads = 0;        ///< G, divides A
  Index vocabulary = 0;      ///< V, rows of the embedding (may exceed the tokenizer's entries)
  Index prefix_tokens = 48;  ///< T, learned key/value vectors per layer and replica; unused at P = 1
  double rope_theta = 10000.0;
  double rms_norm_eps = 1e-6;
  double smoothing = 0.01;  ///< aggregation weights become w (1 - smoothing) + smoothing / P
  double initializer_range = 0.02;
  bool tied = false;                   ///< the LM head is the embedding
  bool replica_rope = false;           ///< `sublayer` rotates queries and keys by the replica index
  bool replica_embedding = false;      ///< a learned vector [P,H] added after replication
  std::vector<int> cross_layers = {};  ///< read only when the architecture leaves its layers to run time
};

/// Whether replicas talk to each other in this layer.
template <Architecture arch>
bool crosses(const Shape& shape, Index layer) {
  if constexpr (canonical(arch).cross_attention == CrossAttention::none) {
    return false;
  } else if constexpr (arch.cross_layers.rule == LayerSet::Rule::at_run_time) {
    for (int listed : shape.cross_layers) {
      if (listed == layer) return true;
    }
    return false;
  } else {
    return arch.cross_layers.contains(layer);
  }
}

/// Prefix tokens that the model really has: none at P = 1, whatever the shape says.
constexpr Index prefix_tokens(const Architecture& arch, const Shape& shape) {
  return arch.replicas > 1 ? shape.prefix_tokens : 0;
}

/// The rules of a Shape. Throws ConfigurationError that names the rule and the values.
void check(const Architecture& arch, const Shape& shape);

/// A compile-time int handed over as a value: `on.attend(head_dim<arch>, {...})`.
template <int n>
struct Int {
  static constexpr int value = n;
  constexpr operator int() const { return n; }
};
template <Architecture arch>
inline constexpr Int<arch.head_dim> head_dim{};
template <Architecture arch>
inline constexpr Int<arch.replicas> replicas{};

inline void check(const Architecture& arch, const Shape& shape) {
  const auto at_least = [](const char* name, Index value, Index least) {
    if (value < least)
      throw ConfigurationError({.what = concat({"The model's ", name, " must be at least ", least}),
                                .why = concat({name, " is ", value})});
  };
  const auto at_most = [](const char* name, Index value, Index most) {
    if (value > most)
      throw ConfigurationError(
          {.what = concat({"The model's ", name, " is larger than this library supports"}),
           .why = concat({name, " is ", value, ", the limit is ", most})});
  };
  constexpr Index limit = Index{1} << 31;  // products of two sizes stay inside 64 bits
  at_least("num_hidden_layers", shape.layers, 1);
  at_most("num_hidden_layers", shape.layers, 65536);
  for (auto [name, value] :
       {std::pair{"hidden_size", shape.hidden}, std::pair{"intermediate_size", shape.intermediate},
        std::pair{"num_attention_heads", shape.heads}, std::pair{"num_key_value_heads", shape.kv_heads},
        std::pair{"vocab_size", shape.vocabulary}}) {
    at_least(name, value, 1);
    at_most(name, value, limit);
  }
  at_least("parscale_n_tokens", shape.prefix_tokens, 0);
  at_most("parscale_n_tokens", shape.prefix_tokens, Index{1} << 20);
  if (shape.heads % shape.kv_heads != 0)
    throw ConfigurationError(
        {.what = "num_attention_heads must be a multiple of num_key_value_heads",
         .why = concat({shape.heads, " heads cannot share ", shape.kv_heads, " key/value heads evenly"})});
  if (!(shape.smoothing >= 0 && shape.smoothing <= 1))
    throw ConfigurationError({.what = "parscale_attn_smooth must lie between 0 and 1",
                              .why = concat({"it is ", shape.smoothing})});
  if (!(shape.rms_norm_eps >= 0 && shape.rms_norm_eps < 1))
    throw ConfigurationError({.what = "rms_norm_eps must be a small number that is not negative",
                              .why = concat({"it is ", shape.rms_norm_eps})});
  if (!(shape.rope_theta > 0 && shape.rope_theta < 1e30))
    throw ConfigurationError(
        {.what = "rope_theta must be a positive number", .why = concat({"it is ", shape.rope_theta})});
  if (!(shape.initializer_range >= 0 && shape.initializer_range < 1e30))
    throw ConfigurationError({.what = "initializer_range must be a finite number that is not negative",
                              .why = concat({"it is ", shape.initializer_range})});
  if (arch.cross_layers.rule != LayerSet::Rule::at_run_time) return;
  for (int layer : shape.cross_layers)
    if (layer < 0 || layer >= shape.layers)
      throw ConfigurationError({.what = "A cross-attention layer lies outside the model",
                                .why = concat({"layer ", layer, " of ", shape.layers})});
}

}  // namespace parscale
