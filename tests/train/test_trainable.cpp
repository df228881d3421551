// Which parameter names a list of patterns accepts.
#include <catch2/catch_test_macros.hpp>

#include <parscale/train/trainable.hpp>

using parscale::Trainable;

TEST_CASE("An empty list accepts every name") {
  for (const char* list : {"", "  ", ",", " , ,"}) {
    const Trainable trainable(list);
    CHECK(trainable.everything());
    CHECK(trainable("model.norm.weight"));
    CHECK(trainable(""));
  }
  CHECK(Trainable()("anything"));
}

TEST_CASE("A pattern accepts the names in which it occurs") {
  const Trainable trainable("prefix,aggregate");
  CHECK_FALSE(trainable.everything());
  CHECK(trainable("model.layers.3.self_attn.prefix_k"));
  CHECK(trainable("model.aggregate_layer.0.bias"));
  CHECK_FALSE(trainable("model.layers.3.self_attn.q_proj.weight"));
  CHECK_FALSE(trainable("model.norm.weight"));
  CHECK_FALSE(trainable(""));
}

TEST_CASE("Blanks around patterns do not count") {
  const Trainable trainable("  prefix_k , norm ,");
  CHECK(trainable.patterns() == std::vector<std::string>{"prefix_k", "norm"});
  CHECK(trainable("model.norm.weight"));
  CHECK_FALSE(trainable("model.layers.0.self_attn.prefix_v"));
}

TEST_CASE("A star stands for any characters, also none") {
  const Trainable mlps("layers.*.mlp");
  CHECK(mlps("model.layers.0.mlp.up_proj.weight"));
  CHECK(mlps("model.layers.17.mlp.up_proj.weight"));
  CHECK(mlps("model.layers..mlp.up_proj.weight"));
  CHECK_FALSE(mlps("model.layers.0.self_attn.q_proj.weight"));
  CHECK_FALSE(mlps("model.mlp.layers.0"));
  CHECK(Trainable("*")("x"));
}

TEST_CASE("Several stars find a way whenever there is one") {
  const Trainable trainable("a*b*c");
  CHECK(trainable("xxaxbxbxcxx"));
  CHECK(trainable("abc"));
  CHECK(trainable("aabbabc"));
  CHECK_FALSE(trainable("acb"));
  CHECK_FALSE(trainable("ab"));
}

TEST_CASE("Other characters stand for themselves") {
  CHECK_FALSE(Trainable("q.proj")("self_attn.q_proj.weight"));
  CHECK_FALSE(Trainable("PREFIX")("prefix_k"));
  CHECK_FALSE(Trainable("?")("prefix_k"));
}
