// Architecture, LayerSet and Shape: what they mean and every rule's message.
#include <catch2/catch_test_macros.hpp>

#include <cmath>
#include <limits>
#include <parscale/config.hpp>
#include <type_traits>

#include "../support/thrown.hpp"

using parscale::Architecture;
using parscale::canonical;
using parscale::ConfigurationError;
using parscale::CrossAttention;
using parscale::crosses;
using parscale::Index;
using parscale::LayerSet;
using parscale::Shape;
using parscale::test::contains;
using parscale::test::thrown;

namespace {

constexpr Architecture expanded(LayerSet layers) {
  return {.head_dim = 8, .replicas = 2, .cross_attention = CrossAttention::expanded, .cross_layers = layers};
}

Shape valid() {
  return {.layers = 4, .hidden = 16, .intermediate = 24, .heads = 4, .kv_heads = 2, .vocabulary = 50};
}

/// The message for a valid shape in which `change` broke one rule.
template <class F>
std::string refused(F change, const Architecture& arch = {}) {
  Shape shape = valid();
  change(shape);
  const std::string message = thrown<ConfigurationError>([&] { check(arch, shape); });
  CHECK(message.find("why:") != std::string::npos);
  return message;
}

}  // namespace

TEST_CASE("An empty list of layers in an architecture means every layer") {
  constexpr Architecture arch{.replicas = 2, .cross_attention = CrossAttention::expanded, .cross_layers = {}};
  static_assert(arch.cross_layers == LayerSet::every());
  for (int layer : {0, 1, 63, 64, 255, 256, 100000}) CHECK(crosses<arch>(valid(), layer));
}

TEST_CASE("A list of layers means these and no others, in every word of the set") {
  constexpr LayerSet listed{0, 4, 63, 64, 127, 128, 191, 192, 255};
  int members = 0;
  for (int layer = -1; layer <= 300; ++layer) members += listed.contains(layer) ? 1 : 0;
  CHECK(members == 9);
  for (int layer : {0, 4, 63, 64, 127, 128, 191, 192, 255}) CHECK(listed.contains(layer));
  CHECK_FALSE(listed.contains(-1));
  CHECK_FALSE(listed.contains(256));
}

TEST_CASE("The order of a list and repeated layers do not matter") {
  static_assert(LayerSet{1, 2, 200} == LayerSet{200, 2, 1, 2});
  static_assert(LayerSet{1} != LayerSet{2});
  static_assert(LayerSet{0} != LayerSet{});
  SUCCEED();
}

TEST_CASE("A list with a layer outside 0 to 255 is out of range as a whole") {
  static_assert(LayerSet{3, 256}.rule == LayerSet::Rule::out_of_range);
  static_assert(LayerSet{-1, 3}.rule == LayerSet::Rule::out_of_range);
  static_assert(!LayerSet{3, 256}.contains(3));
  SUCCEED();
}

TEST_CASE("Layers left to run time come from the shape") {
  Shape shape = valid();
  shape.cross_layers = {1, 3};
  constexpr Architecture arch = expanded(LayerSet::at_run_time());
  CHECK_FALSE(crosses<arch>(shape, 0));
  CHECK(crosses<arch>(shape, 1));
  CHECK_FALSE(crosses<arch>(shape, 2));
  CHECK(crosses<arch>(shape, 3));
  shape.cross_layers = {};
  CHECK_FALSE(crosses<arch>(shape, 1));
}

TEST_CASE("Layers that an architecture lists are not changed by the shape") {
  Shape shape = valid();
  shape.cross_layers = {1};
  CHECK(crosses<expanded({0, 2})>(shape, 0));
  CHECK_FALSE(crosses<expanded({0, 2})>(shape, 1));
  CHECK(crosses<expanded({0, 2})>(shape, 2));
}

TEST_CASE("One replica crosses nowhere, and its architecture is that of plain Qwen2 whatever the kind") {
  constexpr Architecture plain{.head_dim = 8, .replicas = 1};
  for (auto kind : {CrossAttention::none, CrossAttention::expanded, CrossAttention::sublayer})
    CHECK(canonical({.head_dim = 8, .replicas = 1, .cross_attention = kind, .cross_layers = {2}}) == plain);
  constexpr Architecture one{.head_dim = 8, .replicas = 1, .cross_attention = CrossAttention::sublayer};
  CHECK_FALSE(crosses<one>(valid(), 0));
  CHECK(prefix_tokens(one, valid()) == 0);
}

TEST_CASE("Without a kind the layers of an architecture are dropped, with one they stay") {
  constexpr Architecture none{.head_dim = 8, .replicas = 4};
  CHECK(canonical({.head_dim = 8, .replicas = 4, .cross_layers = LayerSet::at_run_time()}) == none);
  CHECK(canonical(expanded({1})) == expanded({1}));
  CHECK_FALSE(canonical(expanded({1})) == canonical(expanded({2})));
}

TEST_CASE("Several replicas have the prefix that the shape says") {
  Shape shape = valid();
  CHECK(prefix_tokens({.replicas = 2}, shape) == 48);
  shape.prefix_tokens = 0;
  CHECK(prefix_tokens({.replicas = 2}, shape) == 0);
}

TEST_CASE("Kinds have names") {
  CHECK(std::string(name_of(CrossAttention::none)) == "none");
  CHECK(std::string(name_of(CrossAttention::expanded)) == "expanded");
  CHECK(std::string(name_of(CrossAttention::sublayer)) == "sublayer");
}

TEST_CASE("A valid shape passes") {
  CHECK_NOTHROW(check(Architecture{}, valid()));
  Shape shape = valid();
  shape.prefix_tokens = 0;
  shape.smoothing = 1;
  shape.rms_norm_eps = 0;
  CHECK_NOTHROW(check(Architecture{}, shape));
}

TEST_CASE("Every size of a shape must be at least one") {
  CHECK(contains(refused([](Shape& s) { s.layers = 0; }), "num_hidden_layers must be at least 1"));
  CHECK(contains(refused([](Shape& s) { s.hidden = 0; }), "hidden_size must be at least 1"));
  CHECK(contains(refused([](Shape& s) { s.intermediate = -3; }), "intermediate_size is -3"));
  CHECK(contains(refused([](Shape& s) { s.heads = 0; }), "num_attention_heads must be at least 1"));
  CHECK(contains(refused([](Shape& s) { s.kv_heads = 0; }), "num_key_value_heads must be at least 1"));
  CHECK(contains(refused([](Shape& s) { s.vocabulary = 0; }), "vocab_size must be at least 1"));
  CHECK(contains(refused([](Shape& s) { s.prefix_tokens = -1; }), "parscale_n_tokens must be at least 0"));
}

TEST_CASE("Absurdly large sizes of a shape are refused") {
  constexpr Index absurd = Index{1} << 40;
  CHECK(contains(refused([](Shape& s) { s.layers = absurd; }), "num_hidden_layers is larger"));
  CHECK(contains(refused([](Shape& s) { s.hidden = absurd; }), "hidden_size is larger"));
  CHECK(contains(refused([](Shape& s) { s.intermediate = absurd; }), "intermediate_size is larger"));
  CHECK(contains(refused([](Shape& s) { s.heads = absurd; }), "num_attention_heads is larger"));
  CHECK(contains(refused([](Shape& s) { s.kv_heads = absurd; }), "num_key_value_heads is larger"));
  CHECK(contains(refused([](Shape& s) { s.vocabulary = absurd; }), "vocab_size is larger"));
  CHECK(contains(refused([](Shape& s) { s.prefix_tokens = absurd; }), "parscale_n_tokens is larger"));
}

TEST_CASE("Query heads must share the key/value heads evenly") {
  const auto message = refused([](Shape& s) { s.heads = 5; });
  CHECK(contains(message, "multiple of num_key_value_heads"));
  CHECK(contains(message, "5 heads cannot share 2"));
  CHECK(contains(refused([](Shape& s) { s.kv_heads = 8; }), "4 heads cannot share 8"));
}

TEST_CASE("Smoothing must lie between 0 and 1") {
  CHECK(contains(refused([](Shape& s) { s.smoothing = -0.01; }), "parscale_attn_smooth"));
  CHECK(contains(refused([](Shape& s) { s.smoothing = 1.01; }), "parscale_attn_smooth"));
  CHECK(contains(refused([](Shape& s) { s.smoothing = std::nan(""); }), "parscale_attn_smooth"));
  for (double bad : {-0.02, std::nan(""), std::numeric_limits<double>::infinity()})
    CHECK(contains(refused([bad](Shape& s) { s.initializer_range = bad; }), "initializer_range"));
}

TEST_CASE("Weights are drawn with a finite deviation that is not negative") {
  CHECK(contains(refused([](Shape& s) { s.initializer_range = -0.02; }), "initializer_range"));
  CHECK(contains(refused([](Shape& s) { s.initializer_range = std::nan(""); }), "initializer_range"));
  CHECK(contains(refused([](Shape& s) { s.initializer_range = HUGE_VAL; }), "initializer_range"));
}

TEST_CASE("The norms' epsilon must be a small number") {
  CHECK(contains(refused([](Shape& s) { s.rms_norm_eps = -1e-6; }), "rms_norm_eps"));
  CHECK(contains(refused([](Shape& s) { s.rms_norm_eps = 1; }), "rms_norm_eps"));
  CHECK(contains(refused([](Shape& s) { s.rms_norm_eps = std::nan(""); }), "rms_norm_eps"));
}

TEST_CASE("The rotary base must be a positive finite number") {
  CHECK(contains(refused([](Shape& s) { s.rope_theta = 0; }), "rope_theta"));
  CHECK(contains(refused([](Shape& s) { s.rope_theta = -10000; }), "rope_theta"));
  CHECK(contains(refused([](Shape& s) { s.rope_theta = std::numeric_limits<double>::infinity(); }),
                 "rope_theta"));
  CHECK(contains(refused([](Shape& s) { s.rope_theta = std::nan(""); }), "rope_theta"));
}

TEST_CASE("A cross-attention layer of the shape must lie inside the model") {
  const Architecture arch = expanded(LayerSet::at_run_time());
  CHECK(contains(refused([](Shape& s) { s.cross_layers = {0, 4}; }, arch), "layer 4 of 4"));
  CHECK(contains(refused([](Shape& s) { s.cross_layers = {-1}; }, arch), "layer -1 of 4"));
  Shape shape = valid();
  shape.cross_layers = {0, 3};
  CHECK_NOTHROW(check(arch, shape));
}
