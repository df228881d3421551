/// Token and replica embeddings and their gradients against plain loops.
#include "tensors.hpp"

namespace parscale::test {
namespace {

struct Sizes {
  Index replicas, sequences, tokens, vocabulary, hidden;
  bool own_ids, replica_embedding;
};
const Sizes sizes[] = {{1, 1, 1, 5, 8, false, false},
                       {4, 2, 9, 30, 16, false, false},
                       {3, 2, 7, 11, 100, true, false},
                       {8, 1, 40, 64, 130, false, true},
                       {2, 3, 33, 500, 70, true, true}};

template <class T>
void check_embed(const Sizes& s) {
  const Index n = s.sequences * s.tokens, rows = s.replicas * n, h = s.hidden;
  const Extent shared{s.sequences, s.tokens}, own{s.replicas, s.sequences, s.tokens};
  const auto ids = random_integers<Token>(s.own_ids ? own : shared, s.vocabulary, 1);
  const auto table = random_tensor<T>({s.vocabulary, h}, 2), replica = random_tensor<T>({s.replicas, h}, 3),
             d_out = random_tensor<T>({rows, h}, 4);
  const In<T> used_replica = s.replica_embedding ? replica.in() : In<T>{};
  Tensor<double> expected({rows, h}), expected_d_table({s.vocabulary, h}, 1),
      expected_d_replica({s.replicas, h}, 2);
  for (Index row = 0; row < rows; ++row)
    for (Index j = 0; j < h; ++j) {
      const Index token = ids[s.own_ids ? row : row % n], r = row / n;
      expected[row * h + j] = static_cast<double>(table[token * h + j]) +
                              (s.replica_embedding ? static_cast<double>(replica[r * h + j]) : 0);
      expected_d_table[token * h + j] += static_cast<double>(d_out[row * h + j]);
      expected_d_replica[r * h + j] += static_cast<double>(d_out[row * h + j]);
    }
  Cpu<T> on({.threads = 2});
  Tensor<T> out({rows, h}), d_table({s.vocabulary, h}, 1), d_replica({s.replicas, h}, 2),
      alone({s.replicas, h}, 2);
  on.embed({.ids = ids.in(), .table = table.in(), .replica_embedding = used_replica, .out = out.out()});
  on.embed_backward({.ids = ids.in(),
                     .d_out = d_out.in(),
                     .d_table = d_table.out(),
                     .d_replica_embedding = s.replica_embedding ? d_replica.out() : Out<T>{}});
  CHECK(difference(out, expected) < tolerance<T>());
  CHECK(difference(d_table, expected_d_table) < tolerance<T>());
  if (s.replica_embedding) CHECK(difference(d_replica, expected_d_replica) < tolerance<T>());
  on.embed_backward({.ids = ids.in(), .d_out = d_out.in(), .d_replica_embedding = alone.out()});
  CHECK(difference(alone, expected_d_replica) < tolerance<T>());
  // Gradients that replace what lay there are those that are added to nothing.
  for (Index i = 0; i < expected_d_replica.count(); ++i) expected_d_replica[i] -= 2;
  for (Index i = 0; i < expected_d_table.count(); ++i) expected_d_table[i] -= 1;
  on.embed_backward({.ids = ids.in(),
                     .d_out = d_out.in(),
                     .d_table = d_table.out(),
                     .d_replica_embedding = alone.out(),
                     .accumulate = false});
  CHECK(difference(d_table, expected_d_table) < tolerance<T>());
  CHECK(difference(alone, expected_d_replica) < tolerance<T>());
}

template <class T>
void check_sum_replicas(const Sizes& s) {
  const Layout layout{.sequences = s.sequences, .tokens = s.tokens, .replicas = static_cast<int>(s.replicas)};
  const auto x = random_tensor<T>({layout.rows(), s.hidden}, 1);
  Tensor<double> expected = as<double>(x);
  const Index one = layout.positions() * s.hidden;
  for (Index i = one; i < x.count(); ++i) expected[i % one] += static_cast<double>(x[i]);
  Tensor<T> sum = x;
  Cpu<T>({.threads = 2}).sum_replicas({.layout = layout, .x = sum.out()});
  CHECK(difference(sum, expected) < tolerance<T>());
}

TEST_CASE("The sum over replicas lies in the first one's rows, the others' stay") {
  for (const Sizes& s : sizes) {
    check_sum_replicas<float>(s);
    check_sum_replicas<double>(s);
  }
}

TEST_CASE("Embeddings copy rows of the table to every replica, and their gradients are added to") {
  for (const Sizes& s : sizes) {
    check_embed<float>(s);
    check_embed<double>(s);
  }
}

TEST_CASE("Embeddings have the same bits for any number of threads") {
  for (const Sizes& s : sizes) {
    const Index rows = s.replicas * s.sequences * s.tokens;
    const auto ids = random_integers<Token>({s.sequences, s.tokens}, s.vocabulary, 1);
    const auto d_out = random_tensor<float>({rows, s.hidden}, 4);
    require_same_bits<float>([&](Cpu<float>& on) {
      Tensor<float> d_table({s.vocabulary, s.hidden}), d_replica({s.replicas, s.hidden});
      on.embed_backward({.ids = ids.in(),
                         .d_out = d_out.in(),
                         .d_table = d_table.out(),
                         .d_replica_embedding = d_replica.out()});
      return together(d_table, d_replica);
    });
  }
}

TEST_CASE("A token outside the vocabulary is an input error that names it") {
  Cpu<float> on({.threads = 1});
  const Tensor<float> table({10, 4});
  Tensor<Token> ids({1, 3}, 9);
  Tensor<float> out({3, 4});
  for (Token bad : {10, -1}) {
    ids[1] = bad;
    try {
      on.embed({.ids = ids.in(), .table = table.in(), .out = out.out()});
      FAIL("no error");
    } catch (const InputError& e) {
      CHECK(std::string(e.what()).find("token " + std::to_string(bad)) != std::string::npos);
      CHECK(std::string(e.what()).find("position 1") != std::string::npos);
    }
  }
}

}  // namespace
}  // namespace parscale::test
