// The crash that began this project, on threads, on processes, and under mpirun (see prefix_crash.hpp).
#include <parscale/distributed/tcp_communicator.hpp>

#include "../support/mpirun.hpp"
#include "prefix_crash.hpp"
#include "processes.hpp"

using namespace parscale;
using namespace parscale::test;

TEST_CASE("Regression: a prefix [4,2,48,128] on 8 ranks, P = 4") {
  const SharedRun run = crashed_run();
  Index prefixes = 0;
  distributed::run_ranks(8, [&](distributed::ThreadsCommunicator& on) {
    distributed::GroupOf group(on);
    auto model = shared_model<CrashedModel>(run, &group);
    model.store().each([&](const Owned<double>& p) {
      if (on.rank() != 0 || !p.name.ends_with("prefix_k")) return;
      CHECK_ON_RANK(p.extent == Extent{4, 2, 48, 128});
      CHECK_ON_RANK(p.weight.count() < p.extent.count());
      ++prefixes;
    });
  });
  CHECK_ON_RANK(prefixes == run.shape.layers);
  const auto one = train_on<CrashedModel>(1, run);
  for (const Sharding sharding : {Sharding::full, Sharding::optimizer, Sharding::none}) {
    SharedRun many = run;
    many.sharding = sharding;
    check_close(train_on<CrashedModel>(8, many), one, 1e-10);
  }
}

TEST_CASE("Regression: a prefix [4,2,48,128] on 8 processes, P = 4") {
  const int port = free_port();
  const auto ended = run_children(8, [&](int rank) {
    Rendezvous rendezvous(launch_of(rank, 8, port), {});
    TcpCommunicator on{TcpTransport(rendezvous)};
    distributed::GroupOf group(on);
    check_crashed_run(group);
  });
  for (const Ended& end : ended) {
    INFO(end.text);
    CHECK_ON_RANK(end.code == 0);
  }
}

#ifdef PARSCALE_MPI_RANK
TEST_CASE("Regression: a prefix [4,2,48,128] on 8 ranks of mpirun, P = 4") {
  const UnderMpirun run = mpirun(8, std::string(PARSCALE_MPI_RANK) + " mpi prefix");
  INFO(run.text);
  CHECK(run.status == 0);
}
#endif
