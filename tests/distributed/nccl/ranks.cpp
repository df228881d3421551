/// Ranks with a GPU each, which no test machine without GPUs can run: `nccl_ranks N` forks N ranks on the
/// first N GPUs, checks every operation, measures two of them, then kills, stops and fails each rank in turn
/// and checks that the others end in time and say who it was. One line a result; exits with 1 when one is
/// wrong.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <parscale/distributed/nccl_communicator.hpp>

#include "../every_operation.hpp"
#include "../processes.hpp"

using namespace parscale;
using namespace parscale::distributed;
using namespace parscale::test;

namespace {

constexpr Milliseconds timeout(3000);

/// Elements on the device, filled from the host or with a pattern that no result has.
template <class T>
class Device {
 public:
  explicit Device(Index count) : count_(count), buffer_(bytes() + 16) {
    cuda::check(cudaMemset(buffer_.data(), 0x7f, bytes()), "fill");
  }
  explicit Device(const std::vector<T>& from) : Device(static_cast<Index>(from.size())) {
    cuda::check(cudaMemcpy(buffer_.data(), from.data(), bytes(), cudaMemcpyHostToDevice), "copy");
  }
  T* data() { return reinterpret_cast<T*>(buffer_.data()); }
  std::vector<T> host(Index count) const {
    std::vector<T> to(static_cast<std::size_t>(count));
    cuda::check(cudaMemcpy(to.data(), buffer_.data(), to.size() * sizeof(T), cudaMemcpyDeviceToHost), "copy");
    return to;
  }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(count_) * sizeof(T); }
  Index count_;
  cuda::Buffer buffer_;
};

/// NCCL adds in an order of its own, BFloat16 rounded at each addition.
template <class T>
void expect(const std::vector<T>& got, const std::vector<T>& wanted, const char* operation) {
  double worst = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if constexpr (std::is_same_v<T, std::byte>)
      worst = got[i] == wanted[i] ? worst : 1;
    else
      worst = std::max(worst, std::abs(static_cast<double>(got[i]) - static_cast<double>(wanted[i])));
  }
  const double allowed = std::is_same_v<T, double> ? 1e-14 : std::is_same_v<T, float> ? 1e-5 : 0.1;
  if (!(worst <= allowed))
    throw std::runtime_error(std::string(operation) + " of " + element_name<T> + " is wrong by " +
                             std::to_string(worst));
}

template <class T>
std::vector<T> part_of(const std::vector<T>& whole, const Partition& parts, int rank) {
  const auto first = whole.begin() + parts.first(rank);
  return std::vector<T>(first, first + parts.count(rank));
}

template <class T>
void check_moves(NcclCommunicator& on, const Partition& parts, bool padded) {
  const auto whole = array_of<T>(0, parts.total(), 1);
  auto mine = part_of(whole, parts, on.rank());
  mine.resize(static_cast<std::size_t>(std::max(parts.stride(), parts.count(on.rank()))));
  Device<T> part(mine), all(parts.padded());
  on.all_gather(AllGather<T>{part.data(), all.data(), parts, padded}).wait();
  cuda::check(cudaDeviceSynchronize(), "wait");
  expect(all.host(parts.total()), whole, "all_gather");

  Device<T> values(array_of<T>(on.rank(), parts.total(), 2));
  on.broadcast(Broadcast<T>{values.data(), parts.total(), on.size() - 1}).wait();
  cuda::check(cudaDeviceSynchronize(), "wait");
  expect(values.host(parts.total()), array_of<T>(on.size() - 1, parts.total(), 2), "broadcast");

  const std::vector<Index> counts(static_cast<std::size_t>(on.size()), parts.count(on.rank()));
  const Partition from(counts);
  Device<T> send(array_of<T>(on.rank(), parts.total(), 3)), receive(from.total());
  on.all_to_all(AllToAll<T>{send.data(), parts, receive.data(), from}).wait();
  cuda::check(cudaDeviceSynchronize(), "wait");
  std::vector<T> wanted;
  for (int r = 0; r < on.size(); ++r) {
    const auto its = part_of(array_of<T>(r, parts.total(), 3), parts, on.rank());
    wanted.insert(wanted.end(), its.begin(), its.end());
  }
  expect(receive.host(from.total()), wanted, "all_to_all");
}

template <class T>
void check_sums(NcclCommunicator& on, const Partition& parts, bool padded) {
  const auto sum = sum_of<T>(on.size(), parts.total(), 4);
  auto mine = array_of<T>(on.rank(), parts.total(), 4);
  mine.resize(static_cast<std::size_t>(parts.padded()));
  Device<T> whole(mine), part(std::max(parts.stride(), parts.count(on.rank())));
  on.reduce_scatter(ReduceScatter<T>{whole.data(), part.data(), parts, padded}).wait();
  cuda::check(cudaDeviceSynchronize(), "wait");
  expect(part.host(parts.count(on.rank())), part_of(sum, parts, on.rank()), "reduce_scatter");
  on.all_reduce(AllReduce<T>{whole.data(), parts.total()}).wait();
  cuda::check(cudaDeviceSynchronize(), "wait");
  expect(whole.host(parts.total()), sum, "all_reduce");
}

void check_operations(NcclCommunicator& on) {
  std::vector<Index> growing;
  for (int r = 0; r < on.size(); ++r) growing.push_back(r * 1000);
  const Partition all_parts[] = {Partition::even(100003, on.size(), 8), Partition::even(5, on.size(), 64),
                                 Partition(growing)};
  for (const Partition& parts : all_parts)
    for (const bool padded : {false, true}) {
      check_moves<float>(on, parts, padded), check_moves<std::byte>(on, parts, padded);
      check_moves<BFloat16>(on, parts, padded);
      check_sums<float>(on, parts, padded), check_sums<double>(on, parts, padded);
      check_sums<BFloat16>(on, parts, padded);
    }
  const auto texts = gather_texts(on, std::string(static_cast<std::size_t>(on.rank()), 'x'));
  for (std::size_t r = 0; r < texts.size(); ++r)
    if (texts[r].size() != r) throw std::runtime_error("gather_texts is wrong");
  const auto half = on.split(on.rank() % 2);
  double one = 1;
  sum_values(*half, {&one, 1});
  if (one != half->size()) throw std::runtime_error("a subgroup's sum is wrong");
}

template <class F>
double seconds(NcclCommunicator& on, F f) {
  for (int i = 0; i < 3; ++i) f();
  barrier(on);
  cuda::check(cudaDeviceSynchronize(), "wait");
  const auto start = Clock::now();
  for (int i = 0; i < 20; ++i) f();
  cuda::check(cudaDeviceSynchronize(), "wait");
  return std::chrono::duration<double>(Clock::now() - start).count() / 20;
}

/// Bytes that each rank must send, by time.
void measure(NcclCommunicator& on) {
  for (const Index million : {8, 64, 256}) {
    const Partition parts = Partition::even(million << 20, on.size(), 64);
    Device<BFloat16> whole(array_of<BFloat16>(on.rank(), parts.padded(), 5)), part(parts.stride());
    Device<float> gradients(parts.padded()), reduced(parts.stride());
    cuda::check(cudaMemset(gradients.data(), 0, static_cast<std::size_t>(parts.padded()) * 4), "fill");
    const double gather = seconds(on, [&] {
      on.all_gather(AllGather<BFloat16>{part.data(), whole.data(), parts, true}).wait();
    });
    const double reduce = seconds(on, [&] {
      on.reduce_scatter(ReduceScatter<float>{gradients.data(), reduced.data(), parts, true}).wait();
    });
    const double elements = static_cast<double>(parts.stride()) * (on.size() - 1) / 1e9;
    if (on.rank() == 0)
      std::printf(
          "%4lld Mi elements: all_gather bf16 %.3f ms, %.0f GB/s; reduce_scatter float %.3f ms, %.0f GB/s\n",
          static_cast<long long>(million), gather * 1e3, 2 * elements / gather, reduce * 1e3,
          4 * elements / reduce);
  }
  std::fflush(stdout);
}

[[noreturn]] void end(const PeerError& error) { ::_exit(error.exit_code()); }

/// f(communicator) on this rank's GPU, with all that a program has around it.
void run_rank(int rank, int world, int port, const std::function<void(NcclCommunicator&)>& f) {
  cuda::check(cudaSetDevice(rank), "choose the GPU");
  const Watch watch{.timeout = timeout};
  const LastResort last_resort(watch.alarm, std::chrono::seconds(4), end);
  Rendezvous rendezvous(launch_of(rank, world, port), watch);
  cudaStream_t compute = nullptr;
  cuda::check(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking), "create a stream");
  NcclCommunicator on(rendezvous, compute);
  on.activity().step(17);
  f(on);
}

void train_until(NcclCommunicator& on, const std::string& fault, int victim) {
  const Partition parts = Partition::even(64 << 20, on.size(), 64);
  Device<float> whole(parts.padded()), part(parts.stride());
  for (int i = 0; i < 2000; ++i) {
    if (i == 20 && on.rank() == victim) {
      if (fault == "killed") ::raise(SIGKILL);
      if (fault == "stopped") ::raise(SIGSTOP);
      throw NumericError({.what = "The loss is not a finite number"});
    }
    on.all_gather(AllGather<float>{part.data(), whole.data(), parts, true, "layer 3"}).wait();
    if (i % 10 == 0) barrier(on);
  }
}

bool check_fault(int world, const std::string& fault, int victim) {
  const int port = free_port();
  std::vector<Child> ranks;
  for (int rank = 0; rank < world; ++rank)
    ranks.emplace_back(
        [=] { run_rank(rank, world, port, [&](NcclCommunicator& on) { train_until(on, fault, victim); }); });
  bool good = true;
  for (int rank = 0; rank < world; ++rank) {
    if (rank == victim) continue;
    const Ended its = ranks[static_cast<std::size_t>(rank)].wait(60);
    const bool named = its.text.find("Rank " + std::to_string(victim) + " (process ") == 0;
    good &= its.code == 5 && (named || its.text.empty());
    std::printf("rank %d %s: rank %d ended with %d after %.1f s: %s\n", victim, fault.c_str(), rank, its.code,
                its.after, its.text.substr(0, its.text.find("\n  why")).c_str());
  }
  return good;
}

}  // namespace

int main(int count, char** arguments) {
  const int world = count > 1 ? std::atoi(arguments[1]) : 1;
  bool good = true;
  const int port = free_port();
  const auto ended = run_children(
      world,
      [&](int rank) {
        run_rank(rank, world, port, [](NcclCommunicator& on) { check_operations(on), measure(on); });
      },
      120);
  for (const Ended& rank : ended) {
    good &= rank.code == 0;
    std::printf("operations: ended with %d after %.1f s %s\n", rank.code, rank.after, rank.text.c_str());
  }
  for (const char* fault : {"killed", "stopped", "throws"})
    for (int victim = 0; world > 1 && victim < world; ++victim) good &= check_fault(world, fault, victim);
  std::puts(good ? "all is well" : "something is WRONG");
  return good ? 0 : 1;
}
