/// What ranks do together. A rank is one process (or thread, in tests) of a run; every rank calls the same
/// operations in the same order, also one that owns nothing. An operation starts at once and returns a
/// Pending; what it reads stays untouched, and what it writes unread, until Pending::wait().
///
/// Bodies: ThreadsCommunicator, TcpCommunicator and MpiCommunicator on CPU memory, NcclCommunicator on GPU
/// memory. Those on the CPU add in rank order, so that results are the same bits on every body and every run.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "../core/bfloat16.hpp"
#include "activity.hpp"
#include "partition.hpp"

namespace parscale::distributed {

template <class T>
concept Element = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, BFloat16> ||
    std::same_as<T, std::byte>;
template <class T>
concept Number = Element<T> && !std::same_as<T, std::byte>;

// In all operands, `what` is for messages ("layer 3"). `padded` says that arrays have room for
// parts.padded() elements and a part for parts.stride(), which the operation may overwrite: NCCL then moves
// parts of one size, its fast way.

/// Everybody gets all parts. `part` may lie at its place in `whole`.
template <Element T>
struct AllGather {
  const T* part;  ///< parts.count(rank) elements
  T* whole;       ///< parts.total() elements
  Partition parts;
  bool padded = false;
  std::string what = {};
};

/// Everybody gets its part of the sum of all ranks' arrays. BFloat16 is added in float on the CPU and rounded
/// once. `part` may lie at its place in `whole`.
template <Number T>
struct ReduceScatter {
  const T* whole;  ///< parts.total() elements
  T* part;         ///< parts.count(rank) elements
  Partition parts;
  bool padded = false;
  std::string what = {};
};

/// Everybody gets the sum of all ranks' arrays, in place.
template <Number T>
struct AllReduce {
  T* values;
  Index count;
  std::string what = {};
};

/// Everybody gets what `root` has, in place.
template <Element T>
struct Broadcast {
  T* values;
  Index count;
  int root = 0;
  std::string what = {};
};

/// Each rank sends each rank a part of its own: part r of `send` goes to rank r, and part r of `receive`
/// comes from it. Sizes may differ as long as both sides agree. Serves reductions in an order of the caller's
/// own.
template <Element T>
struct AllToAll {
  const T* send;
  Partition to;
  T* receive;
  Partition from;
  std::string what = {};
};

/// A group of ranks. `split` makes the subgroup of all ranks that name the same colour, in rank order.
/// `share` is the one synchronous operation: every rank gives the same number of bytes (host memory, few) and
/// gets those of all, in rank order.
template <class C>
concept Communicator = requires(C& on, const C& as, std::span<const std::byte> bytes) {
  { as.rank() } -> std::same_as<int>;
  { as.size() } -> std::same_as<int>;
  { on.all_gather(std::declval<AllGather<BFloat16>>()) } -> std::same_as<typename C::Pending>;
  { on.reduce_scatter(std::declval<ReduceScatter<float>>()) } -> std::same_as<typename C::Pending>;
  { on.all_reduce(std::declval<AllReduce<float>>()) } -> std::same_as<typename C::Pending>;
  { on.broadcast(std::declval<Broadcast<std::byte>>()) } -> std::same_as<typename C::Pending>;
  { on.all_to_all(std::declval<AllToAll<float>>()) } -> std::same_as<typename C::Pending>;
  { on.share(bytes) } -> std::same_as<std::vector<std::byte>>;
  { on.split(int{}) } -> std::same_as<std::unique_ptr<C>>;
  { on.activity() } -> std::same_as<Activity&>;
  requires requires(typename C::Pending pending) { pending.wait(); };
};

/// All that the following ask for.
template <class C>
concept Sharing = requires(C& on, std::span<const std::byte> bytes) {
  { on.share(bytes) } -> std::same_as<std::vector<std::byte>>;
};

/// Returns once every rank has come here.
template <Sharing C>
void barrier(C& on) {
  const std::byte here{};
  on.share({&here, 1});
}

/// `values` of every rank, rank after rank; all give the same number of them.
template <Sharing C>
std::vector<double> gather_values(C& on, std::span<const double> values) {
  const std::vector<std::byte> bytes = on.share(std::as_bytes(values));
  std::vector<double> all(bytes.size() / sizeof(double));
  std::memcpy(all.data(), bytes.data(), bytes.size());
  return all;
}

/// Adds a few host numbers over all ranks, in rank order, in place: the same bits everywhere.
template <Sharing C>
void sum_values(C& on, std::span<double> values) {
  const std::vector<double> all = gather_values(on, values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = all[i];
    for (std::size_t at = i + values.size(); at < all.size(); at += values.size()) values[i] += all[at];
  }
}

/// Whether any rank says yes: SIGTERM came, a file is missing.
template <Sharing C>
bool any_rank(C& on, bool here) {
  double count = here ? 1 : 0;
  sum_values(on, {&count, 1});
  return count > 0;
}

/// A text of every rank, of any lengths.
template <Sharing C>
std::vector<std::string> gather_texts(C& on, std::string_view text) {
  const double length = static_cast<double>(text.size());
  const std::vector<double> lengths = gather_values(on, {&length, 1});
  const auto longest = static_cast<std::size_t>(*std::max_element(lengths.begin(), lengths.end()));
  std::string padded(text);
  padded.resize(longest);
  const std::vector<std::byte> bytes = on.share(std::as_bytes(std::span(padded.data(), padded.size())));
  std::vector<std::string> texts;
  for (std::size_t rank = 0; rank < lengths.size(); ++rank)
    texts.emplace_back(reinterpret_cast<const char*>(bytes.data()) + rank * longest,
                       static_cast<std::size_t>(lengths[rank]));
  return texts;
}

}  // namespace parscale::distributed
