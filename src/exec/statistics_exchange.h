#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "exec/job_observer.h"
#include "mergepipe/comm/communicator.h"

namespace mergepipe {

/// The rounds of one job that several ranks share, as one of them sees it. The first rank of the
/// part leads: it appends what the others saw to its own, in rank order, ends the round, and lets
/// all have the sum. A rank that cannot go on says so, and then all leave. Nothing blocks.
class StatisticsExchange {
 public:
  StatisticsExchange(Communicator& communicator, JobObserver& job);

  /// This rank's part of the round; null if it cannot go on.
  void Offer(std::unique_ptr<TensorStatistics> mine);
  bool waiting() const { return waiting_; }

  enum class Outcome {
    kPending,
    kRoundOver,  ///< another round follows
    kObserved,   ///< that was the last one
    kLeft,       ///< some rank could not go on, or this one
  };
  /// Receives what has arrived. An error is this rank's own; the others learn that it leaves.
  Result<Outcome> Poll();

 private:
  bool leads() const { return communicator_.rank() == Rank(job_.part().first_rank); }
  Result<Outcome> PollLeader();
  Result<Outcome> PollMember();
  Result<Outcome> Conclude();
  void SendToMembers(const std::string& message);

  Communicator& communicator_;
  JobObserver& job_;
  bool waiting_ = false;
  std::unique_ptr<TensorStatistics> mine_;
  int next_member_;
  Status failure_;
};

}  // namespace mergepipe
