/// A rank for tests under mpirun: `mpi_rank BODY SCENARIO [VICTIM]`, BODY mpi or tcp; or `mpi_rank BODY
/// training VICTIM FAULT PLACE FOLDER`, which is failing_training.hpp's run. Prints "wrong" and more on
/// failure; exits like a program.
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <parscale/distributed/mpi_communicator.hpp>
#include <parscale/distributed/tcp_communicator.hpp>
#include <string>

#include "../every_operation.hpp"
#include "../failing_training.hpp"
#include "../prefix_crash.hpp"

using namespace parscale;
using namespace parscale::distributed;

/// Open MPI leaves memory behind that nobody can free: AddressSanitizer shall not look for it.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }

namespace {

struct Task {
  std::string scenario;
  int victim = -1;
  test::Fault fault = {};
  Index place = -1;
  std::filesystem::path folder = {};
};

template <class C>
void train(C& on, const Task& task) {
  GroupOf group(on);
  test::Places places(on.rank() == task.victim ? task.place : -1, [&] { test::suffer(task.fault); });
  test::train_and_save(test::faulty_run(), group, task.folder, places);
}

template <class C>
void run(C& on, const Task& task) {
  if (task.scenario == "operations") return test::EveryOperation(on).check();
  if (task.scenario == "training") return train(on, task);
  if (task.scenario == "prefix") {
    GroupOf group(on);
    return test::check_crashed_run(group);
  }
  on.activity().step(17);
  std::vector<float> values(1 << 18);
  for (int i = 0; i < 10; ++i) {
    if (i == 3 && on.rank() == task.victim) test::suffer(task.fault);
    on.all_reduce(AllReduce<float>{values.data(), 1 << 18, "layer 3"}).wait();
  }
}

[[noreturn]] void end(const PeerError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  std::_Exit(error.exit_code());
}

/// The words that tests use for faults.
test::Fault fault_of(const std::string& word) {
  if (word == "killed") return test::Fault::killed;
  return word == "stopped" ? test::Fault::stopped : test::Fault::exits;
}

Task read_task(const std::vector<std::string>& words) {
  Task task{.scenario = words.at(1)};
  if (words.size() > 2) task.victim = std::stoi(words[2]);
  task.fault = fault_of(words.size() > 3 ? words[3] : task.scenario);
  if (words.size() > 5) {
    task.place = std::stoi(words[4]);
    task.folder = words[5];
  }
  return task;
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> words(arguments + 1, arguments + count);
  try {
    const Task task = read_task(words);
    MpiSession session;
    Launch launch = read_launch();
    session.complete(launch);
    const Watch watch{.timeout = std::chrono::milliseconds(1500)};
    const LastResort last_resort(watch.alarm, std::chrono::seconds(2), end);
    Rendezvous rendezvous(launch, watch);
    if (words[0] == "mpi") {
      MpiCommunicator on{MpiTransport(session, rendezvous)};
      run(on, task);
    } else {
      TcpCommunicator on{TcpTransport(rendezvous)};
      run(on, task);
    }
    return 0;
  } catch (const PeerError& error) {
    end(error);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "wrong: %s\n", error.what());
    return 99;
  }
}
