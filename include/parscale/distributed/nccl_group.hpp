/// One NCCL communicator with its stream, and the thread that watches over it: NCCL kernels wait for a dead
/// peer for ever, and NCCL reports nothing when one on the same host dies. Host code only.
#pragma once

#include <nccl.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "../backend/cuda/runtime.hpp"
#include "transport.hpp"

namespace parscale::distributed {

/// A point in a stream.
class DeviceEvent {
 public:
  explicit DeviceEvent(unsigned flags = cudaEventDisableTiming) {
    cuda::check(cudaEventCreateWithFlags(&event_, flags), "create an event");
  }
  DeviceEvent(const DeviceEvent&) = delete;
  DeviceEvent& operator=(const DeviceEvent&) = delete;
  ~DeviceEvent() { cudaEventDestroy(event_); }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class NcclGroup {
 public:
  /// Takes over `comm`. `compute` is the stream whose work the operations follow and precede.
  NcclGroup(ncclComm_t comm, cudaStream_t compute, Watch watch)
      : comm_(comm), compute_(compute), watch_(std::move(watch)), exceptions_(std::uncaught_exceptions()) {
    cuda::check(cudaGetDevice(&device_), "ask for the device");
    int lowest = 0, highest = 0;
    cuda::check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "ask for stream priorities");
    cuda::check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest), "create a stream");
    thread_ = std::thread([this] { watch_over(); });
    listening_.emplace(watch_.alarm->listen([this] { abort(); }));
  }
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;
  /// Waits for what was started. While an exception unwinds, or after the alarm, it waits for nobody.
  ~NcclGroup() {
    if (std::uncaught_exceptions() > exceptions_ || watch_.alarm->raised())
      abort();
    else
      cudaStreamSynchronize(stream_);
    listening_.reset();
    closing_ = true;
    thread_.join();
    if (comm_ != nullptr) ncclCommDestroy(comm_);
    cudaStreamDestroy(stream_);
  }

  /// Runs call(comm, stream), which starts NCCL operations, behind all that the compute stream has been given
  /// so far. The result is the point at which they have ended.
  template <class Call>
  std::shared_ptr<DeviceEvent> start(std::string operation, Call call) {
    watch_.alarm->check();
    const std::lock_guard lock(mutex_);
    if (comm_ == nullptr) fail(operation, "the communicator has been aborted");
    cuda::check(cudaEventRecord(ready_.get(), compute_), "record an event");
    cuda::check(cudaStreamWaitEvent(stream_, ready_.get(), 0), "wait for an event");
    watch_.activity->begin(operation);
    const ncclResult_t result = call(comm_, stream_);
    if (result != ncclSuccess) fail(operation, words(result));
    auto ended = std::make_shared<DeviceEvent>();
    cuda::check(cudaEventRecord(ended->get(), stream_), "record an event");
    started_.push_back({std::move(operation), ended});
    return ended;
  }

  /// Blocks the host until `event` has come. The alarm ends it, where cudaEventSynchronize would go on.
  void wait_on_host(const DeviceEvent& event) const {
    for (int polls = 0; cudaEventQuery(event.get()) == cudaErrorNotReady; ++polls) {
      watch_.alarm->check();
      if (polls > 1000) std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    watch_.alarm->check();
    cuda::check(cudaEventQuery(event.get()), "wait for the other ranks");
  }

  /// Calls f(comm) under the lock; for calls that start no operation.
  template <class F>
  void with(F f) {
    watch_.alarm->check();
    const std::lock_guard lock(mutex_);
    const ncclResult_t result = comm_ == nullptr ? ncclInvalidUsage : f(comm_);
    if (result != ncclSuccess) fail("split", words(result));
  }

  const Watch& watch() const { return watch_; }
  cudaStream_t compute() const { return compute_; }
  cudaStream_t stream() const { return stream_; }

 private:
  struct Started {
    std::string operation;
    std::shared_ptr<DeviceEvent> ended;
  };

  static std::string words(ncclResult_t result) {
    return std::string(ncclGetErrorString(result)) + ": " + ncclGetLastError(nullptr);
  }
  [[noreturn]] void fail(const std::string& operation, const std::string& why) const {
    watch_.alarm->check();
    throw PeerError(
        {.what = "NCCL failed",
         .where = "in " + operation + ", step " + std::to_string(watch_.activity->snapshot().step),
         .why = why,
         .remedy = "NCCL_DEBUG=INFO says more"});
  }

  void watch_over() {
    cudaSetDevice(device_);
    while (!closing_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      if (watch_.alarm->raised()) continue;
      note_progress();
      if (const std::string error = asynchronous_error(); !error.empty())
        watch_.alarm->raise({.what = "NCCL reports an error of the device or of another rank",
                             .where = to_string(watch_.activity->snapshot()),
                             .why = error,
                             .remedy = "NCCL_DEBUG=INFO says more"});
    }
  }
  void note_progress() {
    const std::lock_guard lock(mutex_);
    while (!started_.empty() && cudaEventQuery(started_.front().ended->get()) != cudaErrorNotReady) {
      started_.pop_front();
      if (started_.empty())
        watch_.activity->end();
      else
        watch_.activity->go_on(started_.front().operation);
    }
  }
  std::string asynchronous_error() {
    const std::lock_guard lock(mutex_);
    ncclResult_t error = ncclSuccess;
    if (comm_ == nullptr || ncclCommGetAsyncError(comm_, &error) != ncclSuccess) return {};
    return error == ncclSuccess || error == ncclInProgress ? std::string() : words(error);
  }

  /// Ends the kernels that wait for others; what they were to write is worth nothing then, which is why every
  /// wait checks the alarm.
  void abort() {
    std::unique_lock lock(mutex_, std::defer_lock);
    // The lock's owner may itself be stuck in NCCL; aborting from elsewhere is what frees it.
    const bool locked = lock.try_lock_for(std::chrono::seconds(1));
    if (ncclComm_t comm = std::exchange(comm_, nullptr); comm != nullptr) ncclCommAbort(comm);
    if (locked) lock.unlock();
  }

  ncclComm_t comm_;
  cudaStream_t compute_;
  Watch watch_;
  const int exceptions_;
  int device_ = 0;
  cudaStream_t stream_ = nullptr;
  DeviceEvent ready_;
  std::timed_mutex mutex_;
  std::deque<Started> started_;  ///< and not known to have ended
  std::atomic<bool> closing_ = false;
  std::thread thread_;
  std::optional<Alarm::Listening> listening_;
};

}  // namespace parscale::distributed
