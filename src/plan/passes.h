#pragma once

#include "mergepipe/plan/planner.h"
#include "plan/pair_table.h"

/// \file
/// The passes of the planner, in the order in which planner.cc runs them.
namespace mergepipe {

/// Fills base, experts, tensors (rules, sources, empty selections) and dropped. All tensors that do
/// not fit are reported together.
Status MatchTensors(const PlanInput& input, Plan& plan);

/// Reserves the reads that are not a choice: fingerprints of the experts, and integer tensors that
/// are compared with the base.
Status ReserveFixedReads(const PlanInput& input, Plan& plan);

/// Integer tensors are compared with the base's when all of them are at most this part of the
/// budget.
inline constexpr uint64_t kCompareShare = 100;
/// Bytes of the experts' integer tensors.
uint64_t IntegerBytes(const Plan& plan);

/// Gives every candidate pair a score; which pass does it depends on options.scoring.
using ScoringPass = Status (*)(const PlanInput& input, const Plan& plan, PairTable& pairs);
struct ScoringRow {
  std::string_view name;
  ScoringPass run;
};
/// kUsage if there is no scoring of that name.
Result<ScoringPass> FindScoring(std::string_view name);

/// Keeps the ceil(top_p * N) blocks with the largest sums of scores as candidates; the pairs of all
/// others become kNotACandidate.
Status LimitTouchedBlocks(const Plan& plan, PairTable& pairs);

/// Takes pairs by score per byte, best first, each if it still fits, and states the objective and
/// its bound.
Status SelectPairs(const PlanInput& input, const PairTable& pairs, Plan& plan);

/// Recomputes what the plan claims from its selection; kInternal if anything differs.
Status ValidatePlan(const Plan& plan, int observation_rounds);

/// How often a tensor with these selected bytes is read.
uint32_t ReadsFor(const PlanOptions& options, int observation_rounds, uint64_t selected_bytes);

}  // namespace mergepipe
