// Where blocks compute in a narrower type: masters, rounded weights and wide gradients find their places.
#include <parscale/core/bfloat16.hpp>

#include "sharded_run.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

/// A device that stores BFloat16 beside float, as a GPU does: memory alone, nothing that computes.
struct Storage {
  using Scalar = BFloat16;
  using Wide = float;
  using Buffer = cpu::Buffer;
  Buffer allocate(std::size_t bytes) { return Buffer(bytes); }
  void fill_zero(Out<float> x) { std::fill_n(x.data, x.count(), 0.0F); }
  void copy_wide(In<float> in, Out<float> out) { std::copy_n(in.data, in.count(), out.data); }
  void to_host(In<float> in, float* host) { std::copy_n(in.data, in.count(), host); }
  void from_host(const float* host, Out<float> out) { std::copy_n(host, out.count(), out.data); }
  void round(In<float> in, Out<BFloat16> out) {
    for (Index i = 0; i < in.count(); ++i) out.data[i] = BFloat16(in.data[i]);
  }
};
using Store = ShardedStore<plain(2), Storage>;

float weight(std::string_view name, Index i, int version) {
  return static_cast<float>(
      normal(static_cast<std::uint64_t>(version), stream_of(name), static_cast<std::uint64_t>(i)));
}

void set_all(Store& store, int version, Storage& on) {
  store.each([&](const OwnedBy<Storage>& p) {
    std::vector<float> values;
    for (Index i = 0; i < p.weight.count(); ++i) values.push_back(weight(p.name, p.offset + i, version));
    set_weight<Storage>(p, 0, values, on);
  });
}

/// Elements of a lent group that are not the rounded weights of this version.
template <class Lent>
Index wrong(const Lent& lent, const std::string& prefix, int version) {
  Index n = 0;
  std::decay_t<decltype(*lent)>::each(
      [&](std::string_view name, const View<const BFloat16>& view) {
        for (Index i = 0; i < view.count(); ++i)
          n += float(view.data[i]) == float(BFloat16(weight(prefix + std::string(name), i, version))) ? 0 : 1;
      },
      *lent);
  return n;
}

/// Blocks of rank r add r + 1 everywhere, or write it over what was there.
template <class Lent>
void add_gradients(const Lent& lent, int rank, bool accumulate) {
  std::decay_t<decltype(*lent)>::each(
      [&](std::string_view, const View<float>& view) {
        for (Index i = 0; i < view.count(); ++i)
          view.data[i] = static_cast<float>(rank + 1) + (accumulate ? view.data[i] : 0);
      },
      *lent);
}

/// The walk of one pass: forward, backward, every unit looked at.
Index walk(Store& store, Index layers, int rank, int version, Storage& on) {
  const auto name = [](Index i) { return "model.layers." + std::to_string(i) + "."; };
  Index n = wrong(store.embedding(), "", version);
  for (Index i = 0; i < layers; ++i) n += wrong(store.layer(i), name(i), version);
  n += wrong(store.top(), "", version);
  add_gradients(store.top_gradients(on), rank, store.accumulates());
  for (Index i = layers; i-- > 0;) {
    n += wrong(store.layer(i), name(i), version);
    add_gradients(store.layer_gradients(i, on), rank, store.accumulates());
  }
  add_gradients(store.embedding_gradients(on), rank, store.accumulates());
  store.finish(on);
  return n;
}

}  // namespace

TEST_CASE("Rounded weights are gathered, and wide gradients summed, pass after pass and step after step") {
  SharedRun run;
  run.shape.layers = 5;
  for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none})
    for (const int world : {2, 3, 8})
      distributed::run_ranks(world, [&](distributed::ThreadsCommunicator& comm) {
        distributed::GroupOf group(comm);
        Storage on;
        Store store(run.shape, on, {.group = &group, .sharding = sharding});
        store.train([](std::string_view name) { return name != "model.layers.1.mlp.up_proj.weight"; }, on);
        Index weights = 0, gradients = 0;
        for (int step = 0; step < 3; ++step) {
          set_all(store, step, on);
          store.begin_step(2, 1, on);
          for (int pass = 0; pass < 2; ++pass) {
            store.begin_pass(true, pass == 1);
            weights += walk(store, run.shape.layers, group.rank(), step, on);
          }
          const auto sum = static_cast<float>(2 * world * (world + 1) / 2);
          store.each([&](const OwnedBy<Storage>& p) {
            for (Index i = 0; i < p.gradient.count(); ++i) gradients += p.gradient.data[i] == sum ? 0 : 1;
            for (Index i = 0; i < p.lent.count(); ++i)
              weights += float(p.lent.data[i]) == float(BFloat16(p.weight.data[i])) ? 0 : 1;
          });
        }
        CHECK_ON_RANK(weights == 0);
        CHECK_ON_RANK(gradients == 0);
      });
}
