// The shared store itself: arithmetic of parts, errors on all ranks, plans, files.
#include <filesystem>
#include <limits>
#include <parscale/io/checkpoint.hpp>
#include <parscale/io/huggingface.hpp>
#include <parscale/train/memory_plan.hpp>

#include "../support/counting_cpu.hpp"
#include "../support/thrown.hpp"
#include "sharded_checkpoint.hpp"
#include "sharded_run.hpp"

using namespace parscale;
using namespace parscale::test;
using distributed::Partition;

namespace {

using Model = Shared<plain(2), double>;
using Counting = CausalLM<plain(2), CountingCpu, ShardedStore>;

/// Runs work(group) on each rank; one alone has no group.
template <class Work>
void on_ranks(int world, Work&& work) {
  if (world == 1) return work(static_cast<distributed::Group*>(nullptr));
  distributed::run_ranks(world, [&](distributed::ThreadsCommunicator& on) {
    distributed::GroupOf group(on);
    work(&group);
  });
}

/// Trains steps [first, last) from or to a checkpoint folder; every rank's losses are the same.
std::vector<double> train_part(const SharedRun& run, int world, Index first, Index last,
                               const std::filesystem::path& from, const std::filesystem::path& to) {
  std::vector<double> losses;
  on_ranks(world, [&](distributed::Group* group) {
    auto model = shared_model<Model>(run, group);
    Trainer<Model> trainer(model, {.sequences = run.micro, .tokens = run.tokens});
    if (first > 0) {
      const auto latest = io::latest_good_checkpoint(from);
      trainer.resume(
          io::read_training_state(latest->checkpoint.path, training_tensors<io::TensorSink>(model)).step);
    }
    for (Index step = first; step < last; ++step) {
      const auto result = trainer.step(micro_batches(run, step, rank_in(group), size_of(group)), 1e-2);
      if (rank_in(group) == 0) losses.push_back(result.loss);
    }
    if (to.empty()) return;
    const auto list = training_tensors<io::TensorSource>(model);
    const Division division = model.store().division();
    io::TrainerState state;
    state.step = last;
    io::save_checkpoint({.parent = to, .name = {.step = last}, .bytes = io::bytes_of(list)}, group,
                        [&](auto& writer) {
                          io::write_training_state(writer, list, state, {rank_in(group), division.owners()});
                        });
  });
  return losses;
}

}  // namespace

TEST_CASE("Parts of what is chosen belong to the owners of the whole") {
  const auto parts = Partition::even(20, 3, 8);  // 8, 8, 4
  const auto some = shared_like(parts, {{6, 4}, {15, 5}});
  CHECK_ON_RANK(some.count(0) == 2);
  CHECK_ON_RANK(some.count(1) == 3);
  CHECK_ON_RANK(some.count(2) == 4);
  CHECK_ON_RANK(shared_like(parts, {{0, 20}}).stride() == 8);
}

TEST_CASE("The tree of sums does not know how its sequences are shared") {
  std::vector<double> values;
  for (int i = 0; i < 13; ++i) values.push_back(normal(1, 2, static_cast<std::uint64_t>(i)));
  const double expected = (((values[0] + values[1]) + (values[2] + values[3])) +
                           ((values[4] + values[5]) + (values[6] + values[7]))) +
                          (((values[8] + values[9]) + (values[10] + values[11])) + values[12]);
  CHECK_ON_RANK(sum_in_tree(values) == expected);
}

TEST_CASE("The plan of a rank is what it allocates, however the model is shared") {
  const Trainable trainable("embed,mlp,head,prefix");
  const Counting::Room room{1, 5, Keep::everything, false};
  const auto check = [&](const SharedRun& run, int world) {
    std::atomic<std::size_t> most = 0, planned = 0;
    on_ranks(world, [&](distributed::Group* group) {
      Counting model(run.shape, 1, CountingCpu(), run.ranks(group));
      Trainer<Counting> trainer(model, {.sequences = 1, .tokens = 5, .trainable = trainable});
      trainer.step(micro_batches(run, 0, rank_in(group), size_of(group)), 1e-2);
      Division division = model.store().division();
      division.sequences = run.sequences;
      const auto plan = memory_plan<Counting>(run.shape, room, trainable, division, model.backend());
      planned = plan.total() - plan.lines.back().bytes;
      for (std::size_t so_far = most, mine = model.backend().asked;
           mine > so_far && !most.compare_exchange_weak(so_far, mine);) {
      }
    });
    INFO("world " << world << ", sharding " << static_cast<int>(run.sharding) << ", tied " << run.shape.tied);
    CHECK(most == planned);
  };
  for (const bool tied : {true, false})
    for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none, Sharding::hybrid}) {
      SharedRun run{.sharding = sharding, .host_ranks = 2};
      run.shape.tied = tied;
      for (const int world : {1, 2, 4}) check(run, world);
      run.rounds_gradients = true;
      check(run, 4);
      run.deterministic = true;
      check(run, 1), check(run, 4);
    }
}

TEST_CASE("The plan of a rank is what it allocates, and more ranks need less") {
  SharedRun run;
  run.shape.layers = 9;
  const TrainerOptions options{.sequences = 1, .tokens = 5};
  const Counting::Room room{1, 5, Keep::everything, false};
  std::size_t before = std::numeric_limits<std::size_t>::max();
  for (const int world : {1, 2, 8})
    on_ranks(world, [&](distributed::Group* group) {
      if (rank_in(group) != 0) {
        Counting other(run.shape, 1, CountingCpu(), {.group = group});
        return;
      }
      Counting model(run.shape, 1, CountingCpu(), {.group = group});
      Trainer<Counting> trainer(model, options);
      const auto plan =
          memory_plan<Counting>(run.shape, room, Trainable(), model.store().division(), model.backend());
      CHECK_ON_RANK(model.backend().asked == plan.total() - plan.lines.back().bytes);
      CHECK_ON_RANK((world == 1 || plan.total() < before));
      before = plan.total();
      CHECK_ON_RANK(
          smallest_world<Counting>(run.shape, room, Trainable(), {}, model.backend(), plan.total()) <= world);
      CHECK_ON_RANK(smallest_world<Counting>(run.shape, room, Trainable(), {}, model.backend(), 100) == 0);
    });
}

TEST_CASE("A number that is not finite on one rank stops all ranks before anything changes") {
  const SharedRun run;
  for (const Sharding sharding : {Sharding::full, Sharding::none}) {
    SharedRun this_run = run;
    this_run.sharding = sharding;
    std::atomic<int> stopped = 0;
    on_ranks(3, [&](distributed::Group* group) {
      auto model = shared_model<Model>(this_run, group);
      Trainer<Model> trainer(model, {.sequences = 1, .tokens = run.tokens});
      model.store().each([&](const Owned<double>& p) {
        if (p.name.ends_with("1.mlp.up_proj.weight") && (p.weight.count() > 0 && p.offset == 0))
          set_weight<Cpu<double>>(p, 0, std::vector{std::numeric_limits<double>::infinity()},
                                  model.backend());
      });
      const auto before = whole_tensors(model, &Owned<double>::weight);
      try {
        trainer.step(micro_batches(run, 0, group->rank(), 3), 1e-2);
      } catch (const NumericError&) {
        ++stopped;
      }
      CHECK_ON_RANK(whole_tensors(model, &Owned<double>::weight) == before);
    });
    CHECK_ON_RANK(stopped == 3);
  }
}

TEST_CASE("The deterministic mode refuses micro-batches of several sequences") {
  Model model(small_shape(), 1, Cpu<double>(CpuOptions{.threads = 1}), {.deterministic = true});
  const auto message =
      thrown<ConfigurationError>([&] { Trainer<Model>(model, {.sequences = 2, .tokens = 5}); });
  CHECK_ON_RANK(contains(message, "one sequence"));
}

TEST_CASE("A checkpoint of any number of ranks goes on with any other") {
  for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none, Sharding::hybrid}) {
    SharedRun run{.steps = 3, .sharding = sharding, .deterministic = true};
    const auto expected = train_part(run, 1, 0, 4, {}, {});
    for (const int saved : {1, 2, 3, 4, 8}) {
      Folder folder("reshard-" + std::to_string(saved));
      run.host_ranks = saved % 2 == 0 ? 2 : 1;
      train_part(run, saved, 0, 2, {}, folder.path);
      for (const int loaded : {1, 2, 3, 4, 8}) {
        INFO("saved by " << saved << ", loaded by " << loaded << ", sharding " << static_cast<int>(sharding));
        run.host_ranks = loaded % 4 == 0 ? 4 : loaded;
        const auto rest = train_part(run, loaded, 2, 4, folder.path, {});
        CHECK_ON_RANK(rest == std::vector(expected.begin() + 2, expected.end()));
      }
    }
  }
}

TEST_CASE("A checkpoint that one rank cannot write fails on all and leaves nothing") {
  Folder folder("failing");
  std::atomic<int> failed = 0;
  on_ranks(3, [&](distributed::Group* group) {
    const auto message = [&] {
      try {
        io::save_checkpoint({.parent = folder.path, .name = {.step = 1}}, group, [&](auto& writer) {
          writer.write("a" + std::to_string(rank_in(group)), [&](const auto& path) {
            if (rank_in(group) == 1) throw StorageError({.what = "no room"});
            io::write_file(path, "text");
          });
        });
        return std::string();
      } catch (const StorageError& error) {
        return std::string(error.what());
      }
    }();
    if (contains(message, "no room") && contains(message, "rank 1")) ++failed;
  });
  CHECK_ON_RANK(failed == 3);
  CHECK_ON_RANK(std::filesystem::is_empty(folder.path));
}

TEST_CASE("The finished model is the same files, whoever shares it") {
  Folder folder("finished");
  SharedRun run;
  const auto save = [&](int world, const std::string& name) {
    on_ranks(world, [&](distributed::Group* group) {
      auto model = shared_model<Model>(run, group);
      io::ModelConfig config;
      config.architecture = Model::architecture;
      config.shape = run.shape;
      config.shape.cross_layers = {};
      io::save_parameters(io::tensors_of(model, &Owned<double>::weight), config, folder.path / name,
                          {.dtype = io::Dtype::f64, .max_shard_bytes = 4000}, group);
    });
  };
  save(1, "one");
  save(3, "three");
  for (const auto& file : std::filesystem::directory_iterator(folder.path / "one"))
    CHECK_ON_RANK(io::read_file(file.path()) ==
                  io::read_file(folder.path / "three" / file.path().filename()));
  on_ranks(3, [&](distributed::Group* group) {
    Model model(run.shape, Uninitialised{}, Cpu<double>(CpuOptions{.threads = 1}), {.group = group});
    LoadReport mine;
    io::fill_parameters(io::tensors_of(model, &Owned<double>::weight), run.shape,
                        io::TensorFiles(folder.path / "one"), 0, mine);
    auto expected = shared_model<Model>(run, group);
    CHECK_ON_RANK(whole_tensors(model, &Owned<double>::weight) ==
                  whole_tensors(expected, &Owned<double>::weight));
  });
}
