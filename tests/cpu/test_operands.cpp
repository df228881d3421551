/// Operands that do not fit together are errors in words, never a crash; memory and threads of the backend.
#include <atomic>
#include <stdexcept>
#include <string>

#include "tensors.hpp"

namespace parscale::test {
namespace {

/// The message of the ConfigurationError that `call` throws.
std::string complaint(const std::function<void()>& call) {
  try {
    call();
  } catch (const ConfigurationError& e) {
    return e.what();
  }
  FAIL("no error");
  return {};
}
bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("A linear layer names the operand whose shape does not fit") {
  Cpu<float> on({.threads = 1});
  const Tensor<float> x({2, 3}), w({5, 4}), bias({6});
  Tensor<float> out({2, 5});
  const auto wrong_weight = complaint([&] { on.linear({.x = x.in(), .weight = w.in(), .out = out.out()}); });
  CHECK(says(wrong_weight, "Operands of linear do not fit together"));
  CHECK(says(wrong_weight, "weight is [5,4], the other operands need [5,3]"));
  const Tensor<float> right({5, 3});
  CHECK(says(
      complaint([&] { on.linear({.x = x.in(), .weight = right.in(), .bias = bias.in(), .out = out.out()}); }),
      "bias is [6], the other operands need [5]"));
}

TEST_CASE("A mandatory operand without memory is an error") {
  Cpu<float> on({.threads = 1});
  const Tensor<float> x({2, 3}), w({5, 3});
  CHECK(says(complaint([&] {
               on.linear({.x = x.in(), .weight = w.in(), .out = {nullptr, {2, 5}}});
             }),
             "out [2,5] has no memory"));
  CHECK(
      says(complaint([&] { on.rms_norm({.x = x.in(), .gain = w.in(), .eps = 1e-6, .out = {}, .rstd = {}}); }),
           "gain is [5,3]"));
}

TEST_CASE("A weight gradient of columns outside its operand is an error") {
  Cpu<float> on({.threads = 1});
  const Tensor<float> x({2, 3}), d_out({2, 5});
  Tensor<float> d_weight({4, 3});
  CHECK(says(complaint([&] {
               on.linear_weight_gradient(
                   {.x = x.in(), .d_out = d_out.in(), .first_column = 2, .d_weight = d_weight.out()});
             }),
             "columns 2 to 6 lie outside d_out [2,5]"));
}

TEST_CASE("A cache that is too small is an error that counts its tokens") {
  Cpu<float> on({.threads = 1});
  const Tensor<float> qkv({2, 4 * 8});
  Tensor<float> keys({1, 1, 6, 8}), values({1, 1, 6, 8});
  const Tensor<Index> past({1}, 5);
  CHECK(says(complaint([&] {
               on.append(Int<8>{}, {.layout = {.sequences = 1, .tokens = 2, .past = past.in()},
                                    .heads = 2,
                                    .kv_heads = 1,
                                    .qkv = qkv.in(),
                                    .keys = keys.out(),
                                    .values = values.out()});
             }),
             "sequence 0 has 5 tokens and gets 2, the cache holds 6"));
}

/// attend over one sequence of three tokens, two heads of 8, after `change`.
std::string attend_complaint(const std::function<void(op::Attend<float>&)>& change) {
  Cpu<float> on({.threads = 1});
  const Tensor<float> qkv({3, 4 * 8});
  Tensor<float> out({3, 2 * 8});
  op::Attend<float> operands{
      .layout = {.sequences = 1, .tokens = 3}, .heads = 2, .kv_heads = 1, .qkv = qkv.in(), .out = out.out()};
  change(operands);
  return complaint([&] { on.attend(Int<8>{}, operands); });
}

TEST_CASE("Attention refuses heads that do not divide") {
  CHECK(says(attend_complaint([](auto& a) { a.kv_heads = 3; }), "2 heads cannot share 3 key/value heads"));
}
TEST_CASE("Attention refuses a past without a cache") {
  const Tensor<Index> past({1}, 1);
  CHECK(
      says(attend_complaint([&](auto& a) { a.layout.past = past.in(); }), "past is given without the cache"));
}
TEST_CASE("Attention refuses a past together with document starts") {
  const Tensor<Index> past({1}, 1);
  const Tensor<std::int32_t> starts({1, 3});
  CHECK(says(attend_complaint([&](auto& a) {
               a.layout.past = past.in();
               a.layout.starts = starts.in();
             }),
             "given together"));
}
TEST_CASE("Attention refuses a document that starts after its token") {
  Tensor<std::int32_t> starts({1, 3});
  starts[1] = 2;
  CHECK(says(attend_complaint([&](auto& a) { a.layout.starts = starts.in(); }),
             "token 1 has its document start at 2"));
}
TEST_CASE("Attention refuses a prefix of another head size") {
  const Tensor<float> prefix({1, 1, 4, 16});
  CHECK(says(attend_complaint([&](auto& a) { a.prefix_k = a.prefix_v = prefix.in(); }),
             "prefix_k is [1,1,4,16], the other operands need [1,1,4,8]"));
}

TEST_CASE("Expanded attention refuses a layout with other replicas") {
  Cpu<float> on({.threads = 1});
  const Tensor<float> qkv({3, 3 * 8});
  Tensor<float> out({3, 2 * 8});
  CHECK(says(complaint([&] {
               on.attend_expanded(Int<8>{}, Int<2>{},
                                  {.layout = {.sequences = 1, .tokens = 3},
                                   .heads = 1,
                                   .kv_heads = 1,
                                   .qkv = qkv.in(),
                                   .out = out.out()});
             }),
             "another number of replicas"));
}

TEST_CASE("Too much memory at once is an error that says how much") {
  Cpu<float> on({.threads = 1});
  CHECK(says(complaint([&] { on.allocate(std::size_t{1} << 60); }), "GiB"));
  CHECK_THROWS_AS(on.allocate(~std::size_t{0}), ConfigurationError);
}

TEST_CASE("Memory is aligned to 64 bytes and may be moved") {
  Cpu<float> on({.threads = 1});
  auto buffer = on.allocate(100);
  CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64 == 0);
  std::byte* data = buffer.data();
  auto moved = std::move(buffer);
  CHECK(moved.data() == data);
  CHECK(on.allocate(0).data() == nullptr);
}

TEST_CASE("A backend may be moved and keeps its threads") {
  Cpu<float> first({.threads = 3});
  Cpu<float> second = std::move(first);
  CHECK(second.threads() == 3);
  CHECK(Cpu<float>().threads() == cpu::usable_cores());
  const Tensor<float> x({1000}, 2);
  CHECK(second.sum_of_squares(x.in()) == 4000);
}

TEST_CASE("Every task runs exactly once, in many short runs") {
  cpu::Threads threads(4);
  for (int run = 0; run < 3000; ++run) {
    std::atomic<int> hits[9] = {};
    threads.run(9, [&](Index task, int) { ++hits[task]; });
    for (auto& hit : hits) REQUIRE(hit == 1);
  }
}

TEST_CASE("A task's exception reaches the caller, and the threads go on working") {
  cpu::Threads threads(3);
  for (int run = 0; run < 50; ++run) {
    CHECK_THROWS_AS(threads.run(20,
                                [](Index task, int) {
                                  if (task == 11) throw std::runtime_error("eleven");
                                }),
                    std::runtime_error);
    std::atomic<int> count{0};
    threads.run(20, [&](Index, int) { ++count; });
    CHECK(count == 20);
  }
}

}  // namespace
}  // namespace parscale::test
