/// A rank for tests under mpirun: `mpi_rank BODY SCENARIO [VICTIM]`, BODY mpi or tcp. Prints "wrong" and more
/// on failure; exits like a program.
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <parscale/distributed/mpi_communicator.hpp>
#include <parscale/distributed/tcp_communicator.hpp>
#include <string>

#include "../every_operation.hpp"

using namespace parscale;
using namespace parscale::distributed;

/// Open MPI leaves memory behind that nobody can free: AddressSanitizer shall not look for it.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }

namespace {

template <class C>
void run(C& on, const std::string& scenario, int victim) {
  if (scenario == "operations") return test::EveryOperation(on).check();
  on.activity().step(17);
  std::vector<float> values(1 << 18);
  for (int i = 0; i < 10; ++i) {
    if (i == 3 && on.rank() == victim) {
      if (scenario == "killed") ::raise(SIGKILL);
      if (scenario == "stopped") ::raise(SIGSTOP);
      if (scenario == "exits") ::_exit(0);
    }
    on.all_reduce(AllReduce<float>{values.data(), 1 << 18, "layer 3"}).wait();
  }
}

[[noreturn]] void end(const PeerError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  std::_Exit(error.exit_code());
}

}  // namespace

int main(int count, char** arguments) {
  const std::string body = arguments[1], scenario = arguments[2];
  const int victim = count > 3 ? std::atoi(arguments[3]) : -1;
  try {
    MpiSession session;
    Launch launch = read_launch();
    session.complete(launch);
    const Watch watch{.timeout = std::chrono::milliseconds(1500)};
    const LastResort last_resort(watch.alarm, std::chrono::seconds(2), end);
    Rendezvous rendezvous(launch, watch);
    if (body == "mpi") {
      MpiCommunicator on{MpiTransport(session, rendezvous)};
      run(on, scenario, victim);
    } else {
      TcpCommunicator on{TcpTransport(rendezvous)};
      run(on, scenario, victim);
    }
    return 0;
  } catch (const PeerError& error) {
    end(error);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "wrong: %s\n", error.what());
    return 99;
  }
}
