#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "mergepipe/plan/statistics.h"
#include "run/inputs.h"
#include "run/sparse_output.h"

namespace mergepipe {

/// A plan that is to be executed, known to rank 0 only.
struct ExecuteRequest {
  PlannedMerge planned;
  ResolvedInputs inputs;
  MergeTarget target;
  std::string catalog;
  std::vector<std::string> command_line;
  std::string started_at;
  std::optional<Manifest> expected;    ///< replay: what the hashes must be
  std::optional<SparseOutput> sparse;  ///< materialize: what the experts gave; there are none
  /// What was analyzed before: blocks that are read must be those. May be null.
  std::shared_ptr<StatisticsSource> statistics;
  PublishHook publish_hook;
};

/// Merges, publishes and records what `prepare` gives on rank 0 (it is not called elsewhere).
/// Collective, with the same `gather` on all ranks; the outcome is rank 0's, an error is
/// everyone's.
Result<MergeOutcome> ExecuteOnAll(FileSystem& files, Communicator& communicator, GatherMode gather,
                                  const ExecLimits& limits,
                                  const std::function<Result<ExecuteRequest>()>& prepare);

}  // namespace mergepipe
