/// Ranks with a GPU each, connected by NCCL. Operations run on a stream of their own: they begin when the
/// compute stream has done what it was given before, and Pending::wait makes the compute stream, not the
/// host, wait for them. All arrays are device memory. Needs the component `nccl`. Host code only.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "communicator.hpp"
#include "nccl_group.hpp"
#include "rendezvous.hpp"

namespace parscale::distributed {

/// How long compute streams have stood still for communication: the part of it that nothing hides.
class Exposure {
 public:
  bool on = false;

  /// Makes `stream` wait for `event`, between two points in time.
  void wait(cudaStream_t stream, cudaEvent_t event) {
    if (on) points_.push_back(point(stream));
    cuda::check(cudaStreamWaitEvent(stream, event, 0), "wait for an event");
    if (on) points_.push_back(point(stream));
  }
  /// Milliseconds since the last call. Waits for the stream.
  double take() {
    double sum = 0;
    for (std::size_t i = 0; i < points_.size(); i += 2) {
      float time = 0;
      cuda::check(cudaEventSynchronize(points_[i + 1]->get()), "wait for an event");
      cuda::check(cudaEventElapsedTime(&time, points_[i]->get(), points_[i + 1]->get()), "measure time");
      sum += static_cast<double>(time);
    }
    points_.clear();
    return sum;
  }

 private:
  static std::unique_ptr<DeviceEvent> point(cudaStream_t stream) {
    auto event = std::make_unique<DeviceEvent>(cudaEventDefault);
    cuda::check(cudaEventRecord(event->get(), stream), "record an event");
    return event;
  }
  std::vector<std::unique_ptr<DeviceEvent>> points_;
};

class NcclCommunicator {
 public:
  /// An operation on the communication stream.
  class [[nodiscard]] Pending {
   public:
    Pending() = default;
    Pending(NcclCommunicator& on, std::shared_ptr<DeviceEvent> ended) : on_(&on), ended_(std::move(ended)) {}
    Pending(Pending&&) noexcept = default;
    Pending& operator=(Pending&& other) noexcept {
      if (this != &other) {
        finish();
        on_ = other.on_;
        ended_ = std::move(other.ended_);
      }
      return *this;
    }
    ~Pending() { finish(); }

    /// The compute stream goes on when the operation has ended. Throws when the alarm has been raised.
    void wait() {
      if (const auto ended = std::move(ended_)) on_->exposure_.wait(on_->group_->compute(), ended->get());
      if (on_ != nullptr) on_->watch().alarm->check();
    }

   private:
    void finish() noexcept {
      if (ended_) cudaStreamWaitEvent(on_->group_->compute(), ended_->get(), 0);
      ended_.reset();
    }
    NcclCommunicator* on_ = nullptr;
    std::shared_ptr<DeviceEvent> ended_;
  };

  /// All ranks of the rendezvous, each with the device that is current; all of them call it.
  NcclCommunicator(Rendezvous& rendezvous, cudaStream_t compute)
      : NcclCommunicator(connect(rendezvous), rendezvous.launch().rank, rendezvous.launch().world, compute,
                         rendezvous.watch()) {}

  int rank() const { return rank_; }
  int size() const { return size_; }
  Activity& activity() { return *watch().activity; }
  const Watch& watch() const { return group_->watch(); }

  template <Element T>
  Pending all_gather(const AllGather<T>& a) {
    return start("all_gather", a.what, [&](ncclComm_t comm, cudaStream_t stream) {
      if (is_equal(a.parts, a.padded))
        return ncclAllGather(a.part, a.whole, size(a.parts.stride()), type<T>(), comm, stream);
      return each_part(
          a.parts,
          [&](int r, T* place, std::size_t count) {
            return ncclBroadcast(r == rank_ ? a.part : place, place, count, type<T>(), r, comm, stream);
          },
          a.whole);
    });
  }

  template <Number T>
  Pending reduce_scatter(const ReduceScatter<T>& a) {
    return start("reduce_scatter", a.what, [&](ncclComm_t comm, cudaStream_t stream) {
      if (is_equal(a.parts, a.padded)) {
        // Whoever owns nothing gets the sum of padding, in its place there.
        T* const place = const_cast<T*>(a.whole) + rank_ * a.parts.stride();
        T* const part = a.parts.count(rank_) > 0 ? a.part : place;
        return ncclReduceScatter(a.whole, part, size(a.parts.stride()), type<T>(), ncclSum, comm, stream);
      }
      return each_part(
          a.parts,
          [&](int r, const T* place, std::size_t count) {
            return ncclReduce(place, a.part, count, type<T>(), ncclSum, r, comm, stream);
          },
          a.whole);
    });
  }

  template <Number T>
  Pending all_reduce(const AllReduce<T>& a) {
    return start("all_reduce", a.what, [&](ncclComm_t comm, cudaStream_t stream) {
      return ncclAllReduce(a.values, a.values, size(a.count), type<T>(), ncclSum, comm, stream);
    });
  }

  template <Element T>
  Pending broadcast(const Broadcast<T>& a) {
    return start("broadcast", a.what, [&](ncclComm_t comm, cudaStream_t stream) {
      return ncclBroadcast(a.values, a.values, size(a.count), type<T>(), a.root, comm, stream);
    });
  }

  template <Element T>
  Pending all_to_all(const AllToAll<T>& a) {
    return start("all_to_all", a.what, [&](ncclComm_t comm, cudaStream_t stream) {
      return grouped([&] {
        for (int r = 0; r < size_; ++r) {
          if (const Index n = a.to.count(r); n > 0)
            if (const auto e = ncclSend(a.send + a.to.first(r), size(n), type<T>(), r, comm, stream))
              return e;
          if (const Index n = a.from.count(r); n > 0)
            if (const auto e = ncclRecv(a.receive + a.from.first(r), size(n), type<T>(), r, comm, stream))
              return e;
        }
        return ncclSuccess;
      });
    });
  }

  /// Host memory, by way of the device. Blocks until the compute stream and the other ranks have come here.
  std::vector<std::byte> share(std::span<const std::byte> mine) {
    std::vector<std::byte> all(mine.size() * static_cast<std::size_t>(size_));
    if (staged_.size() < all.size() + mine.size()) staged_ = cuda::Buffer(2 * (all.size() + mine.size()));
    std::byte* const whole = staged_.data();
    std::byte* const part = whole + all.size();
    const auto ended = group_->start("share", [&](ncclComm_t comm, cudaStream_t stream) {
      cuda::check(cudaMemcpyAsync(part, mine.data(), mine.size(), cudaMemcpyHostToDevice, stream), "copy");
      const auto result = ncclAllGather(part, whole, mine.size(), ncclInt8, comm, stream);
      cuda::check(cudaMemcpyAsync(all.data(), whole, all.size(), cudaMemcpyDeviceToHost, stream), "copy");
      return result;
    });
    group_->wait_on_host(*ended);
    return all;
  }

  std::unique_ptr<NcclCommunicator> split(int colour) {
    ncclComm_t part = nullptr;
    group_->with([&](ncclComm_t comm) { return ncclCommSplit(comm, colour, rank_, &part, nullptr); });
    int rank = 0, size = 0;
    ncclCommUserRank(part, &rank);
    ncclCommCount(part, &size);
    return std::unique_ptr<NcclCommunicator>(
        new NcclCommunicator(part, rank, size, group_->compute(), watch()));
  }

  /// Whether the exposed part of the communication is measured; it costs two events an operation.
  void measure_exposure(bool on) { exposure_.on = on; }
  /// Milliseconds that the compute stream has stood still since the last call.
  double take_exposure() { return exposure_.take(); }

 private:
  NcclCommunicator(ncclComm_t comm, int rank, int size, cudaStream_t compute, const Watch& watch)
      : group_(std::make_unique<NcclGroup>(comm, compute, watch)), rank_(rank), size_(size) {}

  static ncclComm_t connect(Rendezvous& rendezvous) {
    // NVLink multicast needs rights that containers seldom have; set the variable to 1 to try it.
    ::setenv("NCCL_NVLS_ENABLE", "0", 0);
    ncclUniqueId id{};
    std::string mine;
    if (rendezvous.launch().rank == 0) {
      check(ncclGetUniqueId(&id), "make an id");
      mine.assign(id.internal, sizeof id.internal);
    }
    const std::string his = rendezvous.gather(mine, "NCCL's id").front();
    his.copy(id.internal, sizeof id.internal);
    ncclComm_t comm = nullptr;
    rendezvous.watch().activity->begin("connection of the GPUs");
    check(ncclCommInitRank(&comm, rendezvous.launch().world, id, rendezvous.launch().rank),
          "connect the GPUs");
    rendezvous.watch().activity->end();
    return comm;
  }
  static void check(ncclResult_t result, const std::string& doing) {
    if (result != ncclSuccess)
      throw PeerError({.what = "NCCL failed: " + doing,
                       .why = std::string(ncclGetErrorString(result)) + ": " + ncclGetLastError(nullptr),
                       .remedy = "NCCL_DEBUG=INFO says more; every rank of a host needs a GPU of its own"});
  }

  template <class T>
  static constexpr ncclDataType_t type() {
    if constexpr (std::same_as<T, float>) return ncclFloat32;
    if constexpr (std::same_as<T, double>) return ncclFloat64;
    if constexpr (std::same_as<T, BFloat16>) return ncclBfloat16;
    return ncclInt8;
  }
  static std::size_t size(Index count) { return static_cast<std::size_t>(count); }

  template <class Call>
  Pending start(std::string operation, const std::string& what, Call call) {
    if (!what.empty()) operation += " of " + what;
    return {*this, group_->start(std::move(operation), call)};
  }

  /// Whether all parts may be treated as of one size.
  bool is_equal(const Partition& parts, bool padded) const {
    return parts.stride() > 0 && (padded || parts.stride() * size_ == parts.total());
  }
  template <class F>
  static ncclResult_t grouped(F f) {
    if (const auto error = ncclGroupStart()) return error;
    const ncclResult_t result = f();
    const ncclResult_t ended = ncclGroupEnd();
    return result != ncclSuccess ? result : ended;
  }
  /// One NCCL operation a part, f(rank, its place in whole, its count), all started as one.
  template <class T, class F>
  ncclResult_t each_part(const Partition& parts, F f, T* whole) const {
    return grouped([&] {
      for (int r = 0; r < size_; ++r)
        if (parts.count(r) > 0)
          if (const auto error = f(r, whole + parts.first(r), size(parts.count(r)))) return error;
      return ncclSuccess;
    });
  }

  std::unique_ptr<NcclGroup> group_;
  int rank_, size_;
  cuda::Buffer staged_;  // for share
  Exposure exposure_;
};
static_assert(Communicator<NcclCommunicator>);

}  // namespace parscale::distributed
