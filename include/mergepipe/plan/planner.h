#pragma once

#include <vector>

#include "mergepipe/catalog/snapshot.h"
#include "mergepipe/plan/plan.h"

namespace mergepipe {

/// All that a plan is made from. No clock, file, database or rank count: the same input gives the
/// same plan on every machine.
struct PlanInput {
  PlanOptions options;
  const ModelRecord* base = nullptr;
  std::vector<const ModelRecord*> experts;
  /// How often the strategy observes a tensor before it merges it.
  int observation_rounds = 0;
};

/// Plans a merge: matches the tensors, reserves the reads that are not a choice, scores the
/// (expert, block) pairs, and selects within --top-p and the budget. kBadInput lists every tensor
/// that does not fit; kUsage if the budget is too small for a single block (and something was to be
/// read).
Result<Plan> MakePlan(const PlanInput& input);

/// Whether a plan read from a file is one that could have been made from `input` (whose options are
/// the plan's): the same tensors and rules, and sums that hold. kBadInput if not. Model ids are not
/// compared.
Status CheckPlanFits(const Plan& plan, const PlanInput& input);

}  // namespace mergepipe
