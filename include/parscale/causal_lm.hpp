/// The model: ParScale (arXiv 2505.10475) on Qwen2, with cross-replica attention. No backend is included
/// here; model.hpp adds the CPU's.
///
///     embedding -> P streams -> layers in order -> final norm -> aggregation -> LM head
///
/// and the backward through the same blocks in reverse. Weights come from a parameter store, unit by unit;
/// what is kept between the two directions is the Activations' decision.
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "block/activations.hpp"
#include "block/lm_head.hpp"
#include "core/initialise.hpp"
#include "store/local_store.hpp"

namespace parscale {

struct GenerateOptions;
struct LoadReport;
struct Uninitialised {};

/// Use through `CausalLM<arch, Backend>` below, which makes architectures that mean the same one type.
template <Architecture arch, Backend B, template <Architecture, class> class StoreOf = LocalStore>
class BasicCausalLM {
  static_assert(ArchitectureRules<arch>::hold);
  using S = Scalar<B>;
  using W = Wide<B>;
  using Blocks = ModelWeights<arch, B>;

 public:
  static constexpr Architecture architecture = arch;
  using BackendType = B;
  using Store = StoreOf<arch, B>;
  using Memory = Activations<arch, B>;
  using Room = typename Memory::Room;

  /// A model with weights drawn from `seed` (core/initialise.hpp). Throws ConfigurationError on a bad shape.
  BasicCausalLM(const Shape& shape, std::uint64_t seed, B on = B(), typename Store::Options store = {});
  /// A model whose weights the caller fills in at once: by initialise(), or from a file.
  BasicCausalLM(const Shape& shape, Uninitialised, B on = B(), typename Store::Options store = {});

  /// Draws all weights from `seed`.
  void initialise(std::uint64_t seed);

  /// A model from a Hugging Face directory, or a hub name in the local cache: plain Qwen2 or ParScale. What a
  /// checkpoint lacks is initialised; `report` says what that was. Defined in io/huggingface.hpp.
  static BasicCausalLM load(const std::filesystem::path& model, B on = B(), LoadReport* report = nullptr);

  const Shape& shape() const { return shape_; }
  B& backend() { return on_; }
  const B& backend() const { return on_; }
  Store& store() { return store_; }
  const Store& store() const { return store_; }
  Index parameters() const { return store_.parameters(); }

  /// Logits [B,S,V] of a batch's ids [B,S], or of ids [P,B,S] when every replica reads its own tokens.
  std::vector<W> logits(const Batch& batch);

  /// Mean next-token cross-entropy in nats over the positions that count.
  double loss(const Batch& batch);

  /// The continuation of a prompt, without the prompt. Defined in generate.hpp.
  std::vector<Token> generate(std::span<const Token> prompt, const GenerateOptions& options);
  /// Several prompts of any lengths at once.
  std::vector<std::vector<Token>> generate(const std::vector<std::vector<Token>>& prompts,
                                           const GenerateOptions& options);

  /// Adds the gradients of one micro-batch to the store's, and returns its share of the loss: the sum over
  /// its counted positions times `scale` (one over the positions that count in the whole global batch).
  double loss_and_gradients(const Batch& batch, double scale, Memory& memory);
  /// Takes part in a pass of processes that have a micro-batch more: asks the store for the same units in the
  /// same order, and adds nothing.
  void accompany();

  /// The way from loaded ids to the merged stream [N,H]; `cache` holds earlier tokens, a layer each, or is
  /// empty.
  using Cache = std::vector<typename PrefixCache<arch, B>::Tokens>;
  View<S> forward(Memory& memory, const Cache& cache = {});

  /// The merged stream's rows as vocabulary logits: x [N,H] -> out [N,V].
  void head(In<S> x, Out<W> out);

 private:
  double head_loss(In<S> merged, double scale, Out<S> d_merged, Memory& memory);
  void backward(Memory& memory);
  void forward_layer(Index i, Out<S> y, Memory& memory, const Cache& cache);
  Context<B> context(Memory& memory) {
    return {on_, shape_, memory.layout, memory.scratch(), store_.accumulates()};
  }
  bool own_ids(const Batch& batch) const {
    return static_cast<Index>(batch.ids.size()) > batch.sequences * batch.tokens;
  }

  B on_;
  Shape shape_;
  Store store_;
};

/// The model for an architecture, on a backend: `CausalLM<Architecture{.head_dim = 64, .replicas = 4},
/// Cpu<float>>`.
template <Architecture arch, Backend B, template <Architecture, class> class StoreOf = LocalStore>
using CausalLM = BasicCausalLM<canonical(arch), B, StoreOf>;

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
BasicCausalLM<arch, B, StoreOf>::BasicCausalLM(const Shape& shape, Uninitialised, B on,
                                               typename Store::Options store)
    : on_(std::move(on)), shape_((check(arch, shape), shape)), store_(shape_, on_, store) {}

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
BasicCausalLM<arch, B, StoreOf>::BasicCausalLM(const Shape& shape, std::uint64_t seed, B on,
                                               typename Store::Options store)
    : BasicCausalLM(shape, Uninitialised{}, std::move(on), store) {
  initialise(seed);
}

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
void BasicCausalLM<arch, B, StoreOf>::initialise(std::uint64_t seed) {
  std::vector<W> values;
  store_.each([&](const OwnedBy<B>& p) {
    values.resize(static_cast<std::size_t>(p.weight.count()));
    parscale::initialise(std::span(values), p.name, shape_.initializer_range, seed, p.offset);
    set_weight<B>(p, 0, values, on_);
  });
}

// ids -> P streams -> every layer -> final norm -> one merged stream.
template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
View<Scalar<B>> BasicCausalLM<arch, B, StoreOf>::forward(Memory& memory, const Cache& cache) {
  auto at = context(memory);
  Blocks::Bottom::forward(*store_.embedding(), memory.ids, memory.streams.front(), at);
  for (Index i = 0; i < shape_.layers; ++i)
    forward_layer(i, memory.streams[static_cast<std::size_t>(i + 1)], memory, cache);
  auto top = store_.top();
  Blocks::Norm::forward(top->norm, memory.streams.back(), memory.aggregation.streams, memory.norm_rstd, at,
                        arch.replicas);
  return Blocks::Aggregate::forward(top->aggregate_layer, memory.aggregation, at);
}

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
void BasicCausalLM<arch, B, StoreOf>::forward_layer(Index i, Out<S> y, Memory& memory, const Cache& cache) {
  const auto slot = static_cast<std::size_t>(i);
  auto at = context(memory);
  auto weights = store_.layer(i);
  const auto earlier = cache.empty() ? typename PrefixCache<arch, B>::Tokens{} : cache[slot];
  Blocks::Layer::forward(*weights, crosses<arch>(shape_, i), memory.streams[slot], y, memory.layers[slot],
                         earlier, at);
}

// The gradient of the merged stream lies in memory.d_merged; the way back, each unit's gradients handed over.
template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
void BasicCausalLM<arch, B, StoreOf>::backward(Memory& memory) {
  auto at = context(memory);
  {
    Arena::Frame frame(memory.scratch());
    auto top = store_.top();
    auto d_top = store_.top_gradients(on_);
    View<S> d_streams = arch.replicas == 1
                            ? memory.d_merged
                            : memory.scratch().template take<S>(memory.aggregation.streams.extent);
    Blocks::Aggregate::backward(top->aggregate_layer, d_top->aggregate_layer, memory.aggregation,
                                memory.d_merged, d_streams, at);
    Blocks::Norm::backward(top->norm, d_top->norm, memory.streams.back(), memory.norm_rstd, d_streams, {},
                           memory.d_stream, at, arch.replicas);
  }
  for (Index i = shape_.layers; i-- > 0;) {
    const auto slot = static_cast<std::size_t>(i);
    if (memory.room().keep == Keep::layer_inputs) forward_layer(i, memory.again, memory, {});
    auto weights = store_.layer(i);
    auto d_weights = store_.layer_gradients(i, on_);
    Blocks::Layer::backward(*weights, *d_weights, crosses<arch>(shape_, i), memory.streams[slot],
                            memory.d_stream, memory.layers[slot], at);
  }
  Blocks::Bottom::backward(*store_.embedding_gradients(on_), memory.ids, memory.d_embedded, at);
}

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
double BasicCausalLM<arch, B, StoreOf>::loss_and_gradients(const Batch& batch, double scale, Memory& memory) {
  check(batch, arch.replicas, shape_.vocabulary);
  if (batch.targets.empty()) throw ConfigurationError({.what = "A batch without targets has no loss"});
  memory.load(batch, {}, on_);
  const double loss = head_loss(forward(memory), scale, memory.d_merged, memory);
  backward(memory);
  store_.finish(on_);
  return loss;
}

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
double BasicCausalLM<arch, B, StoreOf>::head_loss(In<S> merged, double scale, Out<S> d_merged,
                                                  Memory& memory) {
  auto at = context(memory);
  const auto loss = [&](In<S> weight, Out<W> d_weight) {
    return d_merged
               ? LmHead<B>::loss_and_gradients(weight, d_weight, merged, memory.targets, scale, d_merged, at)
               : LmHead<B>::loss(weight, merged, memory.targets, scale, on_);
  };
  // What the store lends is given back at the end of each full expression.
  if (shape_.tied)
    return loss(store_.embedding()->embed_tokens,
                d_merged ? store_.embedding_gradients(on_)->embed_tokens : Out<W>{});
  return loss(store_.top()->lm_head, d_merged ? store_.top_gradients(on_)->lm_head : Out<W>{});
}

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
void BasicCausalLM<arch, B, StoreOf>::accompany() {
  store_.embedding();
  for (Index i = 0; i < shape_.layers; ++i) store_.layer(i);
  store_.top();
  if (shape_.tied)
    store_.embedding(), store_.embedding_gradients(on_);
  else
    store_.top(), store_.top_gradients(on_);
  store_.top(), store_.top_gradients(on_);
  for (Index i = shape_.layers; i-- > 0;) store_.layer(i), store_.layer_gradients(i, on_);
  store_.embedding_gradients(on_);
  store_.finish(on_);
}

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
void BasicCausalLM<arch, B, StoreOf>::head(In<S> x, Out<W> out) {
  if (shape_.tied)
    LmHead<B>::logits(store_.embedding()->embed_tokens, x, out, on_);
  else
    LmHead<B>::logits(store_.top()->lm_head, x, out, on_);
}

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
std::vector<Wide<B>> BasicCausalLM<arch, B, StoreOf>::logits(const Batch& batch) {
  check(batch, arch.replicas, shape_.vocabulary);
  Memory memory(shape_, {batch.sequences, batch.tokens, Keep::nothing, own_ids(batch)}, on_);
  memory.load(batch, {}, on_);
  const View<S> merged = forward(memory);
  const Extent extent{merged.extent[0], shape_.vocabulary};
  auto buffer = on_.allocate(static_cast<std::size_t>(extent.count()) * sizeof(W));
  const View<W> out{reinterpret_cast<W*>(buffer.data()), extent};
  head(merged, out);
  std::vector<W> result(static_cast<std::size_t>(extent.count()));
  on_.to_host(out.readable(), result.data());
  return result;
}

template <Architecture arch, Backend B, template <Architecture, class> class StoreOf>
double BasicCausalLM<arch, B, StoreOf>::loss(const Batch& batch) {
  check(batch, arch.replicas, shape_.vocabulary);
  const Index counted = batch.counted();
  if (counted == 0) throw ConfigurationError({.what = "A batch without targets has no loss"});
  Memory memory(shape_, {batch.sequences, batch.tokens, Keep::nothing, own_ids(batch)}, on_);
  memory.load(batch, {}, on_);
  return head_loss(forward(memory), 1.0 / static_cast<double>(counted), {}, memory);
}

}  // namespace parscale

#include "generate.hpp"
