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

/// Whether everything is read: --top-p is 1 and the budget covers all reads.
bool EverythingFits(const PlanInput& input, const Plan& plan);

/// A probe takes at most this part of the budget.
inline constexpr uint64_t kProbeShare = 8;

/// What PlanProbe gives; nothing if the budget has no room for a probe.
std::optional<ProbeReads> FinestProbe(const PlanInput& input, const Plan& started,
                                      const std::vector<uint32_t>& experts);

/// Charges the probe of the experts of kProbe, and notes its stride.
Status ReserveProbe(const PlanInput& input, Plan& plan);

/// Reads the statistics once, tensor by tensor: notes their hashes and the blocks that are equal to
/// the base's (no candidates from then on), and gives every candidate its energy and its score.
/// kUsage if the scoring needs statistics that are not there; but with allow_empty and a budget
/// that is too small to get them by a probe, no pair remains a candidate.
Status ScorePairs(const PlanInput& input, Plan& plan, PairTable& pairs);

/// Keeps the ceil(top_p * N) blocks with the largest sums of scores as candidates; the pairs of all
/// others become kNotACandidate, and their blocks are counted.
Status LimitTouchedBlocks(Plan& plan, PairTable& pairs);

/// Takes pairs by score per byte, best first, each if it still fits, and states the objective and
/// its bound.
Status SelectPairs(const PlanInput& input, const PairTable& pairs, Plan& plan);

/// Sums the energies by tensor and expert.
void StateEnergy(const PairTable& pairs, Plan& plan);
/// The bound on the distance to the full read, if there is one.
void StateErrorBound(const PlanInput& input, const PairTable& pairs, Plan& plan);

/// Recomputes what the plan claims from its selection; kInternal if anything differs.
Status ValidatePlan(const Plan& plan, int observation_rounds);

/// How often a tensor with these selected bytes is read.
uint32_t ReadsFor(const PlanOptions& options, int observation_rounds, uint64_t selected_bytes);
/// What is read whatever is selected.
uint64_t FixedBytes(const Plan& plan);

/// What any pair takes at most, in all its reads.
uint64_t LargestCharge(const PlanInput& input, const Plan& plan);

/// The reads that are not a choice do not fit the budget, or leave too little for `block` more
/// bytes. The budget that it names is enough, also for the finer probe of the experts `probed`
/// that it allows.
Error BudgetTooSmall(const PlanInput& input, const Plan& plan, const std::string& for_what,
                     uint64_t block, const std::vector<uint32_t>& probed);
/// The experts that are known by a probe.
std::vector<uint32_t> ProbedExperts(const PlanInput& input);

}  // namespace mergepipe
