/// The processes of one run: who this one is among them, what it asks the others before there is a model, and
/// how it ends with them.
#pragma once

#include <fstream>
#include <memory>
#include <parscale/distributed/agreement.hpp>
#include <span>
#include <string>
#include <vector>

#include "common/any_model.hpp"
#include "common/options.hpp"

namespace parscale::program {

/// Made first, dies last. Alone it opens nothing, and every exchange is with itself.
class RunRanks {
 public:
  /// Waits for all processes of the launch and compares version and options. Rank 0 speaks for all: the
  /// others print errors alone. Throws PeerError or ConfigurationError.
  explicit RunRanks(const Options& options);
  ~RunRanks();

  int rank() const;
  int world() const;
  bool first() const { return rank() == 0; }
  bool together() const { return world() > 1; }
  /// Whether a launcher has started this run again after a failure.
  bool restarted() const;

  /// Where this process computes, and with whom.
  Placement placement(const TrainingOptions& options);

  /// A text of every rank, by rank. `what` is for messages.
  std::vector<std::string> gather(const std::string& text, const std::string& what);
  /// Numbers of every rank, rank after rank; once the model is there.
  std::vector<double> gather(std::span<const double> values);
  /// Throws PeerError on all when they differ anywhere.
  void check_agreement(const distributed::Facts& facts);
  /// Messages say from now on that this is the step.
  void begin_step(Index step);
  /// A line for this rank's own log, where training.rank_logs asks for one.
  void log(const std::string& line);

  /// Runs `body`; the others hear how it failed.
  template <class Body>
  int run(Body&& body) {
    try {
      return body();
    } catch (const Error& error) {
      tell_failure(error.explanation());
      throw;
    } catch (const std::exception& error) {
      tell_failure({.what = error.what()});
      throw;
    }
  }

 private:
  struct Connected;

  void open_log(const TrainingOptions& options);
  void tell_failure(const Explanation& explanation);

  std::ofstream log_;                     // closed: nobody asked for it
  std::unique_ptr<Connected> connected_;  // null: alone
};

}  // namespace parscale::program
