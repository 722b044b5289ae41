#pragma once

#include <optional>
#include <vector>

#include "mergepipe/catalog/snapshot.h"
#include "mergepipe/plan/plan.h"
#include "mergepipe/plan/statistics.h"

namespace mergepipe {

/// All that a plan is made from. No clock, file, database or rank count: the same input gives the
/// same plan on every machine.
struct PlanInput {
  PlanOptions options;
  const ModelRecord* base = nullptr;
  std::vector<const ModelRecord*> experts;
  /// How often the strategy observes a tensor before it merges it.
  int observation_rounds = 0;
  /// For each expert the largest |c_k| with which a strategy of fixed coefficients adds c_k D_k;
  /// nothing for other strategies.
  std::optional<std::vector<double>> coefficients;
  StatisticsSource* statistics = nullptr;  ///< null: nothing is known
  /// Expert bytes of an analysis that is a part of the command: charged as a probe's are.
  uint64_t analysis_bytes = 0;
  /// A plan that reads nothing, though there is something to read, is an answer too.
  bool allow_empty = false;

  StatisticsKind KindOf(uint32_t expert) const {
    return statistics == nullptr ? StatisticsKind::kNone : statistics->KindOf(expert);
  }
};

/// Plans a merge: matches the tensors, reserves the reads that are not a choice, scores the
/// (expert, block) pairs, and selects within --top-p and the budget. kBadInput lists every tensor
/// that does not fit; kUsage if the scoring needs statistics that are not there (unless allow_empty
/// and a budget too small for a probe leave nothing to choose), or if the budget is too small for a
/// single block (and something was to be read).
Result<Plan> MakePlan(const PlanInput& input);

/// The first passes: tensors are matched, fingerprints and integer tensors are charged.
Result<Plan> StartPlan(const PlanInput& input);
/// Whether the selection depends on scores that come from statistics; `started` is StartPlan's.
bool NeedsScores(const PlanInput& input, const Plan& started);

/// What a probe of some experts reads.
struct ProbeReads {
  uint64_t stride = 1;  ///< 0: there is no probe
  uint64_t bytes = 0;
};
/// The finest probe of `experts` that takes at most an eighth of the budget; the same before the
/// probe, to take it, and in the plan, to charge it. If not even the first block of each can be
/// probed: none with allow_empty (MakePlan then plans to read nothing), else kUsage, naming a
/// budget that is enough for a probe and a block. kUsage also if the fixed reads leave no room.
Result<ProbeReads> PlanProbe(const PlanInput& input, const Plan& started,
                             const std::vector<uint32_t>& experts);

/// What one budget would give.
struct SweepPoint {
  double percent = 0;  ///< of the candidate bytes
  uint64_t budget_bytes = 0;
  uint64_t planned_bytes = 0;
  uint64_t touched_blocks = 0;
  double energy_covered = 0;  ///< share of the squared norm of all deltas that is read, in [0, 1]
  std::optional<ErrorBound> bound;
};
/// The points at budgets of so many percent of the candidate bytes, other options being equal. All
/// experts must have exact statistics. A budget too small to read anything gives an empty point.
Result<std::vector<SweepPoint>> SweepBudgets(const PlanInput& input,
                                             const std::vector<double>& percents);

/// Share of the squared norm of all deltas that the plan reads; nothing if it is not known.
std::optional<double> EnergyCovered(const Plan& plan);

/// Whether a plan read from a file is one that could have been made from `input` (whose options are
/// the plan's): the same tensors and rules, and sums that hold. kBadInput if not. Model ids are not
/// compared.
Status CheckPlanFits(const Plan& plan, const PlanInput& input);

}  // namespace mergepipe
