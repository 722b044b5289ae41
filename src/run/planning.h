#pragma once

#include <functional>
#include <memory>

#include "mergepipe/plan/planner.h"
#include "run/inputs.h"
#include "run/known_statistics.h"

namespace mergepipe {

/// A planned merge, what it was planned for, and what is known of it.
struct Planned {
  PlannedMerge merge;
  ResolvedInputs inputs;
  std::shared_ptr<KnownStatistics> statistics;
};

/// Resolves the inputs, takes the statistics that the scoring needs, plans, and puts models,
/// statistics and plan into the catalog. `check` is called on rank 0 as soon as the inputs are
/// known. Collective; the plan is rank 0's (elsewhere nothing), an error is everyone's. On an error
/// nothing new is in the catalog, but for models and statistics once some were to be taken.
Result<std::optional<Planned>> PlanOnAll(FileSystem& files, Communicator& communicator,
                                         const MergeOptions& options,
                                         const std::function<Status(const ResolvedInputs&)>& check);

}  // namespace mergepipe
