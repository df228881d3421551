/// Every operation of a communicator against a plain computation that knows all ranks' arrays. Throws what is
/// wrong, so that it can run in threads and processes, where Catch2's macros cannot.
#pragma once

#include <parscale/distributed/communicator.hpp>
#include <parscale/io/hash.hpp>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace parscale::test {

using namespace parscale::distributed;

template <class T>
constexpr const char* element_name = std::is_same_v<T, float>      ? "float"
                                     : std::is_same_v<T, double>   ? "double"
                                     : std::is_same_v<T, BFloat16> ? "BFloat16"
                                                                   : "byte";

/// The array that a rank has: random, so that the order of a sum shows in its bits.
template <class T>
std::vector<T> array_of(int rank, Index count, std::uint64_t seed) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint64_t bits = io::mix(seed << 40 | static_cast<std::uint64_t>(rank) << 32 | i);
    if constexpr (std::is_same_v<T, std::byte>)
      values[i] = static_cast<std::byte>(bits & 0xffU);
    else
      values[i] = static_cast<T>(static_cast<float>(static_cast<std::int64_t>(bits)) * 0x1p-63F);
  }
  return values;
}

/// The sum of all ranks' arrays: in rank order, BFloat16 in float and rounded once.
template <class T>
std::vector<T> sum_of(int world, Index count, std::uint64_t seed) {
  using Wide = std::conditional_t<std::is_same_v<T, BFloat16>, float, T>;
  std::vector<Wide> sum;
  for (int rank = 0; rank < world; ++rank) {
    const auto values = array_of<T>(rank, count, seed);
    if (rank == 0)
      for (const T value : values) sum.push_back(static_cast<Wide>(value));
    else
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<Wide>(values[i]);
  }
  std::vector<T> rounded;
  for (const Wide value : sum) rounded.push_back(static_cast<T>(value));
  return rounded;
}

template <Communicator C>
class EveryOperation {
 public:
  explicit EveryOperation(C& on) : on_(on) {}

  /// Over even and uneven parts, empty ones, none at all, and parts longer than a piece of a reduction.
  void check() {
    for (const Index count : {0, 1, 7, 5001}) {
      check(Partition::even(count, on_.size()));
      check(Partition::even(count, on_.size(), 64));
    }
    check(growing(3));
    check(growing(100));
    sums<float>(all_of_one(on_.size() - 1, 140000));
    check_few();
    check_subgroups();
    check_overlap();
  }

 private:
  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }

  Partition growing(Index step) const {
    std::vector<Index> counts;
    for (int r = 0; r < on_.size(); ++r) counts.push_back(r * step);
    return Partition(counts);
  }
  Partition all_of_one(int owner, Index count) const {
    std::vector<Index> counts(at(on_.size()));
    counts[at(owner)] = count;
    return Partition(counts);
  }

  template <class T>
  void expect(const std::vector<T>& got, const std::vector<T>& wanted, const std::string& operation) const {
    if (got.size() == wanted.size() &&
        (got.empty() || std::memcmp(got.data(), wanted.data(), got.size() * sizeof(T)) == 0))
      return;
    throw std::runtime_error(operation + " of " + element_name<T> + ", " + std::to_string(wanted.size()) +
                             " elements: wrong on rank " + std::to_string(on_.rank()) + " of " +
                             std::to_string(on_.size()));
  }
  template <class T>
  static std::vector<T> part_of(const std::vector<T>& whole, const Partition& parts, int rank) {
    const auto first = whole.begin() + parts.first(rank);
    return std::vector<T>(first, first + parts.count(rank));
  }

  void check(const Partition& parts) {
    moves<float>(parts), moves<double>(parts), moves<BFloat16>(parts), moves<std::byte>(parts);
    sums<float>(parts), sums<double>(parts), sums<BFloat16>(parts);
  }

  template <class T>
  void moves(const Partition& parts) {
    const std::uint64_t seed = ++seed_;
    const auto whole = array_of<T>(0, parts.total(), seed);
    const auto part = part_of(whole, parts, on_.rank());
    std::vector<T> got(whole.size());
    on_.all_gather(AllGather<T>{.part = part.data(), .whole = got.data(), .parts = parts}).wait();
    expect(got, whole, "all_gather");

    got.assign(whole.size(), T{});
    std::copy(part.begin(), part.end(), got.begin() + parts.first(on_.rank()));
    T* const place = got.data() + parts.first(on_.rank());
    on_.all_gather(AllGather<T>{.part = place, .whole = got.data(), .parts = parts}).wait();
    expect(got, whole, "all_gather in place");

    for (int root = 0; root < on_.size(); ++root) {
      got = array_of<T>(on_.rank(), parts.total(), seed);
      on_.broadcast(Broadcast<T>{.values = got.data(), .count = parts.total(), .root = root}).wait();
      expect(got, array_of<T>(root, parts.total(), seed), "broadcast");
    }
    // Rank r has the same partition of an array of its own; all parts r go to rank r.
    std::vector<Index> counts(at(on_.size()), parts.count(on_.rank()));
    const Partition from(counts);
    const auto mine = array_of<T>(on_.rank(), parts.total(), seed);
    std::vector<T> arrived(at(from.total())), wanted;
    on_.all_to_all(AllToAll<T>{.send = mine.data(), .to = parts, .receive = arrived.data(), .from = from})
        .wait();
    for (int r = 0; r < on_.size(); ++r) {
      const auto its = part_of(array_of<T>(r, parts.total(), seed), parts, on_.rank());
      wanted.insert(wanted.end(), its.begin(), its.end());
    }
    expect(arrived, wanted, "all_to_all");
  }

  template <class T>
  void sums(const Partition& parts) {
    const std::uint64_t seed = ++seed_;
    const auto sum = sum_of<T>(on_.size(), parts.total(), seed);
    auto mine = array_of<T>(on_.rank(), parts.total(), seed);
    std::vector<T> got(at(parts.count(on_.rank())));
    on_.reduce_scatter(ReduceScatter<T>{.whole = mine.data(), .part = got.data(), .parts = parts}).wait();
    expect(got, part_of(sum, parts, on_.rank()), "reduce_scatter");

    auto in_place = mine;
    T* const place = in_place.data() + parts.first(on_.rank());
    on_.reduce_scatter(ReduceScatter<T>{.whole = in_place.data(), .part = place, .parts = parts}).wait();
    expect(part_of(in_place, parts, on_.rank()), part_of(sum, parts, on_.rank()), "reduce_scatter in place");

    on_.all_reduce(AllReduce<T>{.values = mine.data(), .count = parts.total()}).wait();
    expect(mine, sum, "all_reduce");
  }

  void check_few() {
    std::vector<double> values{0.1 * (on_.rank() + 1), 1};
    sum_values(on_, values);
    double sum = 0.1;
    for (int r = 1; r < on_.size(); ++r) sum += 0.1 * (r + 1);
    expect(values, {sum, static_cast<double>(on_.size())}, "sum_values");
    if (any_rank(on_, false) || !any_rank(on_, on_.rank() == on_.size() - 1))
      throw std::runtime_error("any_rank is wrong");
    const auto texts = gather_texts(on_, std::string(at(3 * on_.rank()), 'x'));
    for (int r = 0; r < on_.size(); ++r)
      if (texts[at(r)] != std::string(at(3 * r), 'x')) throw std::runtime_error("gather_texts is wrong");
    barrier(on_);
  }

  void check_subgroups() {
    const auto half = on_.split(on_.rank() % 2);
    if (half->size() != (on_.size() + 1 - on_.rank() % 2) / 2 || half->rank() != on_.rank() / 2)
      throw std::runtime_error("split made another group");
    double sum = on_.rank(), wanted = 0;
    sum_values(*half, {&sum, 1});
    for (int r = on_.rank() % 2; r < on_.size(); r += 2) wanted += r;
    expect(std::vector<double>{sum}, {wanted}, "sum over a subgroup");
  }

  /// Several operations under way at once end in the order of their start.
  void check_overlap() {
    const Partition parts = Partition::even(10000, on_.size());
    const auto whole = array_of<float>(0, parts.total(), ++seed_);
    const auto part = part_of(whole, parts, on_.rank());
    std::vector<std::vector<float>> got(8, std::vector<float>(whole.size()));
    std::vector<typename C::Pending> pending;
    for (auto& to : got)
      pending.push_back(on_.all_gather(AllGather<float>{part.data(), to.data(), parts, false, "several"}));
    for (std::size_t i = got.size(); i-- > 0;) pending[i].wait();
    for (const auto& its : got) expect(its, whole, "all_gather beside others");
  }

  C& on_;
  std::uint64_t seed_ = 0;
};

}  // namespace parscale::test
