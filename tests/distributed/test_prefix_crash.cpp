// The crash that began this project: eight ranks, four replicas, a prefix [4,2,48,128] that was sharded on
// its replica axis, and code that read the number of replicas from the shard's shape.
#include <parscale/distributed/tcp_communicator.hpp>

#include "processes.hpp"
#include "sharded_run.hpp"

using namespace parscale;
using namespace parscale::test;

namespace {

using Model = Shared<Architecture{.head_dim = 128, .replicas = 4}, double>;

SharedRun one_step() {
  SharedRun run{.sequences = 8, .tokens = 3, .steps = 1};
  run.shape.heads = 2;
  run.shape.kv_heads = 2;
  run.shape.prefix_tokens = 48;
  run.shape.cross_layers = {};
  return run;
}

}  // namespace

TEST_CASE("Regression: a prefix [4,2,48,128] on 8 ranks, P = 4") {
  const SharedRun run = one_step();
  Index prefixes = 0;
  distributed::run_ranks(8, [&](distributed::ThreadsCommunicator& on) {
    distributed::GroupOf group(on);
    auto model = shared_model<Model>(run, &group);
    model.store().each([&](const Owned<double>& p) {
      if (on.rank() != 0 || !p.name.ends_with("prefix_k")) return;
      CHECK_ON_RANK(p.extent == Extent{4, 2, 48, 128});
      CHECK_ON_RANK(p.weight.count() < p.extent.count());
      ++prefixes;
    });
  });
  CHECK_ON_RANK(prefixes == run.shape.layers);
  const auto one = train_on<Model>(1, run);
  for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none}) {
    SharedRun many = run;
    many.sharding = sharding;
    check_close(train_on<Model>(8, many), one, 1e-10);
  }
}

TEST_CASE("Regression: a prefix [4,2,48,128] on 8 processes, P = 4") {
  const SharedRun run = one_step();
  const auto one = train_on<Model>(1, run);
  const int port = free_port();
  const auto ended = run_children(8, [&](int rank) {
    Rendezvous rendezvous(launch_of(rank, 8, port), {});
    TcpCommunicator on{TcpTransport(rendezvous)};
    distributed::GroupOf group(on);
    const auto mine = train_rank<Model>(run, &group);
    double worst = std::abs(mine.losses[0] - one.losses[0]) + std::abs(mine.norms[0] - one.norms[0]);
    for (const auto& [name, values] : one.weights)
      for (std::size_t i = 0; i < values.size(); ++i)
        worst = std::max(worst, std::abs(values[i] - mine.weights.at(name)[i]));
    if (!(worst < 1e-10)) throw NumericError({.what = "Differs by " + std::to_string(worst)});
  });
  for (const Ended& end : ended) {
    INFO(end.text);
    CHECK_ON_RANK(end.code == 0);
  }
}
