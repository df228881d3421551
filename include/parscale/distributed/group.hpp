/// A communicator behind one type, whatever its body: what a program chooses at run time, so that models are
/// compiled once and not once for each way to communicate.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "communicator.hpp"

namespace parscale::distributed {

class Group {
 public:
  /// As Communicator's: wait() once, movable; its end waits silently.
  class [[nodiscard]] Pending {
   public:
    struct Work {
      virtual ~Work() = default;
      virtual void wait() = 0;
    };
    Pending() = default;
    explicit Pending(std::unique_ptr<Work> work) : work_(std::move(work)) {}
    void wait() {
      if (const auto work = std::move(work_)) work->wait();
    }

   private:
    std::unique_ptr<Work> work_;
  };

  virtual ~Group() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual Activity& activity() = 0;

  virtual Pending all_gather(const AllGather<float>& a) = 0;
  virtual Pending all_gather(const AllGather<double>& a) = 0;
  virtual Pending all_gather(const AllGather<BFloat16>& a) = 0;
  virtual Pending reduce_scatter(const ReduceScatter<float>& a) = 0;
  virtual Pending reduce_scatter(const ReduceScatter<double>& a) = 0;
  virtual Pending reduce_scatter(const ReduceScatter<BFloat16>& a) = 0;
  virtual Pending all_reduce(const AllReduce<float>& a) = 0;
  virtual Pending all_reduce(const AllReduce<double>& a) = 0;
  virtual Pending all_reduce(const AllReduce<BFloat16>& a) = 0;
  virtual Pending all_to_all(const AllToAll<float>& a) = 0;
  virtual Pending all_to_all(const AllToAll<double>& a) = 0;
  virtual std::vector<std::byte> share(std::span<const std::byte> mine) = 0;
  /// The group of all ranks that name the same colour, in rank order; it must not outlive this one.
  virtual std::unique_ptr<Group> split(int colour) = 0;
};

/// The group of all ranks of a communicator.
template <Communicator C>
class GroupOf final : public Group {
 public:
  /// `on` must outlive it.
  explicit GroupOf(C& on) : on_(on) {}
  explicit GroupOf(std::unique_ptr<C> own) : own_(std::move(own)), on_(*own_) {}

  int rank() const override { return on_.rank(); }
  int size() const override { return on_.size(); }
  Activity& activity() override { return on_.activity(); }

  Pending all_gather(const AllGather<float>& a) override { return erased(on_.all_gather(a)); }
  Pending all_gather(const AllGather<double>& a) override { return erased(on_.all_gather(a)); }
  Pending all_gather(const AllGather<BFloat16>& a) override { return erased(on_.all_gather(a)); }
  Pending reduce_scatter(const ReduceScatter<float>& a) override { return erased(on_.reduce_scatter(a)); }
  Pending reduce_scatter(const ReduceScatter<double>& a) override { return erased(on_.reduce_scatter(a)); }
  Pending reduce_scatter(const ReduceScatter<BFloat16>& a) override { return erased(on_.reduce_scatter(a)); }
  Pending all_reduce(const AllReduce<float>& a) override { return erased(on_.all_reduce(a)); }
  Pending all_reduce(const AllReduce<double>& a) override { return erased(on_.all_reduce(a)); }
  Pending all_reduce(const AllReduce<BFloat16>& a) override { return erased(on_.all_reduce(a)); }
  Pending all_to_all(const AllToAll<float>& a) override { return erased(on_.all_to_all(a)); }
  Pending all_to_all(const AllToAll<double>& a) override { return erased(on_.all_to_all(a)); }
  std::vector<std::byte> share(std::span<const std::byte> mine) override { return on_.share(mine); }
  std::unique_ptr<Group> split(int colour) override { return std::make_unique<GroupOf>(on_.split(colour)); }

 private:
  struct Work final : Pending::Work {
    explicit Work(typename C::Pending started) : pending(std::move(started)) {}
    void wait() override { pending.wait(); }
    typename C::Pending pending;
  };
  static Pending erased(typename C::Pending pending) {
    return Pending(std::make_unique<Work>(std::move(pending)));
  }

  std::unique_ptr<C> own_;
  C& on_;
};

}  // namespace parscale::distributed
