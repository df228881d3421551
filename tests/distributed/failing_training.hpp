/// A run of three steps with a checkpoint after each, one rank of which fails at a chosen place of the second
/// step: in the loader, before or inside any exchange of training and saving, between the files of a
/// checkpoint.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "sharded_checkpoint.hpp"

namespace parscale::test {

enum class Fault { killed, stopped, exits, throws, stuck };

/// Does it to the process, or thread, that calls it.
inline void suffer(Fault fault, std::chrono::milliseconds stuck_for = std::chrono::seconds(20)) {
  if (fault == Fault::killed) ::raise(SIGKILL);
  if (fault == Fault::stopped) ::raise(SIGSTOP);
  if (fault == Fault::exits) ::_exit(0);
  if (fault == Fault::throws) throw NumericError({.what = "A fault of its own", .where = "step 2"});
  std::this_thread::sleep_for(stuck_for);
  throw NumericError({.what = "It was stuck for too long"});
}

/// The places of a step, in the order in which a rank comes to them; at one of them something happens.
class Places {
 public:
  Places() = default;
  Places(Index fatal, std::function<void()> strike) : fatal_(fatal), strike_(std::move(strike)) {}

  /// Whether places count now.
  void count(bool counts) { counts_ = counts; }
  void reach(const std::string& name) {
    if (arrive(name)) strike_();
  }
  /// An operation that ends later: every other one is struck before it starts, the rest while it runs.
  template <class Start>
  auto reach(const std::string& name, Start start) {
    const bool fatal = arrive(name);
    if (fatal && fatal_ % 2 == 0) strike_();
    auto pending = start();
    if (fatal) strike_();
    return pending;
  }
  const std::vector<std::string>& names() const { return names_; }

 private:
  bool arrive(const std::string& name) {
    if (!counts_) return false;
    names_.push_back(name);
    return static_cast<Index>(names_.size()) == fatal_ + 1;
  }

  Index fatal_ = -1;
  std::function<void()> strike_;
  bool counts_ = false;
  std::vector<std::string> names_;
};

/// A group whose every operation is a place.
class GroupOfPlaces final : public distributed::Group {
 public:
  GroupOfPlaces(distributed::Group& on, Places& places) : on_(on), places_(places) {}

  int rank() const override { return on_.rank(); }
  int size() const override { return on_.size(); }
  distributed::Activity& activity() override { return on_.activity(); }

  Pending all_gather(const distributed::AllGather<float>& a) override { return gather(a); }
  Pending all_gather(const distributed::AllGather<double>& a) override { return gather(a); }
  Pending all_gather(const distributed::AllGather<BFloat16>& a) override { return gather(a); }
  Pending reduce_scatter(const distributed::ReduceScatter<float>& a) override { return scatter(a); }
  Pending reduce_scatter(const distributed::ReduceScatter<double>& a) override { return scatter(a); }
  Pending reduce_scatter(const distributed::ReduceScatter<BFloat16>& a) override { return scatter(a); }
  Pending all_reduce(const distributed::AllReduce<float>& a) override { return reduce(a); }
  Pending all_reduce(const distributed::AllReduce<double>& a) override { return reduce(a); }
  Pending all_reduce(const distributed::AllReduce<BFloat16>& a) override { return reduce(a); }
  Pending all_to_all(const distributed::AllToAll<float>& a) override { return to_all(a); }
  Pending all_to_all(const distributed::AllToAll<double>& a) override { return to_all(a); }
  std::vector<std::byte> share(std::span<const std::byte> mine) override {
    places_.reach("share");
    return on_.share(mine);
  }
  std::unique_ptr<Group> split(int colour) override { return on_.split(colour); }

 private:
  template <class A>
  Pending gather(const A& a) {
    return places_.reach("all_gather of " + a.what, [&] { return on_.all_gather(a); });
  }
  template <class A>
  Pending scatter(const A& a) {
    return places_.reach("reduce_scatter of " + a.what, [&] { return on_.reduce_scatter(a); });
  }
  template <class A>
  Pending reduce(const A& a) {
    return places_.reach("all_reduce of " + a.what, [&] { return on_.all_reduce(a); });
  }
  template <class A>
  Pending to_all(const A& a) {
    return places_.reach("all_to_all of " + a.what, [&] { return on_.all_to_all(a); });
  }

  distributed::Group& on_;
  Places& places_;
};

/// The model and the run that are to survive.
using FaultyModel = Shared<plain(2), double>;
inline SharedRun faulty_run() {
  SharedRun run{.sequences = 3, .steps = 3};
  run.shape.layers = 3;  // more than are gathered at a time
  return run;
}

template <class Model>
void save(Model& model, Index step, distributed::Group& group, const std::filesystem::path& folder,
          Places& places) {
  const auto list = training_tensors<io::TensorSource>(model);
  const Division division = model.store().division();
  io::TrainerState state;
  state.step = step;
  io::save_checkpoint(
      {.parent = folder, .name = {.step = step}, .bytes = io::bytes_of(list)}, &group, [&](auto& writer) {
        places.reach("the save, before its files");
        io::write_training_state(writer, list, state, {group.rank(), division.shares() ? division.world : 1});
        places.reach("the save, after its files");
      });
}

/// Trains to the last step, from the newest checkpoint in `folder` if there is one.
inline void train_and_save(const SharedRun& run, distributed::Group& plain_group,
                           const std::filesystem::path& folder, Places& places) {
  GroupOfPlaces group(plain_group, places);
  auto model = shared_model<FaultyModel>(run, &group);
  Trainer<FaultyModel> trainer(model, {.sequences = run.micro, .tokens = run.tokens});
  if (const auto latest = io::latest_good_checkpoint(folder))
    trainer.resume(
        io::read_training_state(latest->checkpoint.path, training_tensors<io::TensorSink>(model)).step);
  distributed::barrier(group);  // nobody saves before all have looked
  while (trainer.steps() < run.steps) {
    const Index step = trainer.steps();
    group.activity().step(step + 1);
    places.count(step == 1);
    places.reach("the loader");
    trainer.step(micro_batches(run, step, group.rank(), group.size()), 1e-2);
    save(model, step + 1, group, folder, places);
  }
}

/// The same on threads, without a fault; what the first rank came by.
inline std::vector<std::string> train_on_threads(int world, const SharedRun& run,
                                                 const std::filesystem::path& folder) {
  std::vector<std::string> names;
  io::tidy_checkpoints(folder);
  distributed::run_ranks(world, [&](distributed::ThreadsCommunicator& on) {
    distributed::GroupOf group(on);
    Places places;
    train_and_save(run, group, folder, places);
    if (on.rank() == 0) names = places.names();
  });
  return names;
}

/// Whether two folders hold the same last checkpoint, bit for bit; its manifest says when it was written.
inline bool same_end(const SharedRun& run, const std::filesystem::path& a, const std::filesystem::path& b) {
  const std::string name = io::CheckpointName{.step = run.steps}.text();
  int files = 0;
  for (const auto& file : std::filesystem::directory_iterator(a / name)) {
    if (file.path().filename() == "manifest.json") continue;
    const auto other = b / name / file.path().filename();
    if (!std::filesystem::exists(other) || io::read_file(file.path()) != io::read_file(other)) return false;
    ++files;
  }
  return files > 2;
}

}  // namespace parscale::test
