/// Self-attention, plain and expanded, against its definition: whole sequences, cut documents, caches.
#include "attention_cases.hpp"

namespace parscale::test {
namespace {

template <class T, int D, int P>
void check_attention(const AttentionSizes& sizes) {
  Cpu<T> on({.threads = 2});
  const AttentionCase<T> a(sizes, D, P);
  INFO("D " << D << ", P " << P << ", B " << sizes.sequences << ", S " << sizes.tokens << ", A "
            << sizes.heads << ", G " << sizes.kv_heads << ", T " << sizes.prefix);
  Tensor<T> out, log_sum;
  const NaiveAttention plain(a, false), expanded(a, true);
  on.attend(Int<D>{}, a.attend(1, out, log_sum));
  CHECK(difference(out, plain.out) < tolerance<T>());
  CHECK(difference(log_sum, plain.log_sum) < tolerance<T>());
  on.attend_expanded(Int<D>{}, Int<P>{}, a.attend(P, out, log_sum));
  CHECK(difference(out, expanded.out) < tolerance<T>());
  CHECK(difference(log_sum, expanded.log_sum) < tolerance<T>());
  auto without_log_sum = a.attend(P, out, log_sum);
  without_log_sum.log_sum = {};
  on.attend_expanded(Int<D>{}, Int<P>{}, without_log_sum);
  CHECK(difference(out, expanded.out) < tolerance<T>());
}

template <class T, int D, int P>
void check_all(const std::vector<AttentionSizes>& list) {
  for (const AttentionSizes& sizes : list) check_attention<T, D, P>(sizes);
}

TEST_CASE("Attention over whole sequences is its definition") {
  check_all<float, 8, 1>(whole_sequences());
  check_all<float, 64, 2>(whole_sequences());
  check_all<float, 128, 3>({{2, 70, 4, 2, 48}});
  check_all<float, 16, 8>({{2, 9, 4, 2, 48}, {2, 33, 7, 1, 48, true}});
  check_all<double, 16, 1>(whole_sequences());
  check_all<double, 24, 4>(whole_sequences());
}

TEST_CASE("Attention over a cache is its definition") {
  check_all<float, 8, 1>(cached_sequences());
  check_all<float, 64, 2>(cached_sequences());
  check_all<float, 128, 3>({{2, 1, 4, 2, 48, false, {7, 290}}});
  check_all<float, 16, 8>(cached_sequences());
  check_all<double, 16, 1>(cached_sequences());
  check_all<double, 24, 4>(cached_sequences());
}

TEST_CASE("Scores far apart do not overflow") {
  Cpu<float> on({.threads = 1});
  AttentionCase<float> a({1, 9, 2, 1, 4}, 8, 2);
  for (float& x : a.qkv.values) x *= 60;
  Tensor<float> out, log_sum;
  on.attend_expanded(Int<8>{}, Int<2>{}, a.attend(2, out, log_sum));
  for (float x : out.values) CHECK(std::isfinite(x));
}

TEST_CASE("Attention has the same bits for any number of threads") {
  for (const auto& list : {whole_sequences(), cached_sequences()})
    for (const AttentionSizes& sizes : list) {
      const AttentionCase<float> a(sizes, 16, 2);
      require_same_bits<float>([&](Cpu<float>& on) {
        Tensor<float> out, log_sum, expanded, expanded_log_sum;
        on.attend(Int<16>{}, a.attend(1, out, log_sum));
        on.attend_expanded(Int<16>{}, Int<2>{}, a.attend(2, expanded, expanded_log_sum));
        return together(out, log_sum, expanded, expanded_log_sum);
      });
    }
}

TEST_CASE("Appending puts keys and values behind what the cache holds, and nothing else changes") {
  Cpu<float> on({.threads = 2});
  const AttentionCase<float> a({2, 3, 4, 2, 0, false, {5, 0}}, 8, 2);
  Tensor<float> keys(a.keys.extent, 1), values(a.keys.extent, 2), expected_keys = keys,
                                                                  expected_values = values;
  for (Index row = 0; row < a.rows(); ++row)
    for (Index g = 0; g < 2; ++g)
      for (Index d = 0; d < 8; ++d) {
        const Index stream = row / 3, slot = a.sizes.past[static_cast<std::size_t>(stream % 2)] + row % 3;
        const Index place = ((stream * 2 + g) * a.capacity + slot) * 8 + d;
        expected_keys[place] = a.qkv[row * 64 + (4 + g) * 8 + d];
        expected_values[place] = a.qkv[row * 64 + (6 + g) * 8 + d];
      }
  on.append(Int<8>{}, {.layout = a.layout(),
                       .heads = 4,
                       .kv_heads = 2,
                       .qkv = a.qkv.in(),
                       .keys = keys.out(),
                       .values = values.out()});
  CHECK(keys.values == expected_keys.values);
  CHECK(values.values == expected_values.values);
}

}  // namespace
}  // namespace parscale::test
