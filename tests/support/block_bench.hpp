/// What every block needs to run by itself: a backend, sizes, a layout, and memory full of NaN, so that
/// nothing can be right by chance of what lay there.
#pragma once

#include <algorithm>
#include <cstring>
#include <parscale/backend/cpu/cpu.hpp>
#include <parscale/block/context.hpp>

#include "central_differences.hpp"

namespace parscale::test {

class Bench {
 public:
  using B = Cpu<double>;

  Bench(const Shape& shape, int replicas, Index sequences, Index tokens)
      : shape_(shape),
        layout_{.sequences = sequences, .tokens = tokens, .replicas = replicas},
        memory_(on_.allocate(size)),
        arena_(memory_.data(), size) {
    std::memset(memory_.data(), 0xff, size);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  /// Cuts the sequences into documents: the first token of each token's document, [B,S].
  void cut(std::vector<std::int32_t> starts) {
    starts_ = std::move(starts);
    layout_.starts = {starts_.data(), {static_cast<Index>(starts_.size())}};
  }

  const Shape& shape() const { return shape_; }
  const Layout& layout() const { return layout_; }
  B& on() { return on_; }
  /// What blocks take their Kept from.
  Arena& arena() { return arena_; }
  Context<B> context() { return {on_, shape_, layout_, arena_}; }

  /// Room for a result or an operand; NaN so far.
  View<double> take(const Extent& extent) { return arena_.take<double>(extent); }
  /// An operand with random values.
  View<double> random(const Extent& extent, std::uint64_t seed) {
    const View<double> view = take(extent);
    fill(view, random_values(extent.count(), seed, 1.0));
    return view;
  }
  static void fill(const View<double>& view, const std::vector<double>& values) {
    std::copy(values.begin(), values.end(), view.data);
  }

 private:
  static constexpr std::size_t size = std::size_t{1} << 20;

  B on_{CpuOptions{.threads = 1}};
  Shape shape_;
  Layout layout_;
  std::vector<std::int32_t> starts_;
  B::Buffer memory_;
  Arena arena_;
};

inline std::span<double> values_of(const View<double>& view) {
  return {view.data, static_cast<std::size_t>(view.count())};
}
inline std::vector<double> copy_of(const View<double>& view) { return {view.data, view.data + view.count()}; }

}  // namespace parscale::test
