#include "mergepipe/plan/planner.h"

#include <algorithm>

#include "mergepipe/base/text.h"
#include "plan/passes.h"
#include "plan/scoring.h"

namespace mergepipe {
namespace {

Status CheckPairCount(const PlanInput& input) {
  uint64_t blocks = 0;
  for (const TensorInfo& tensor : input.base->layout.tensors) {
    blocks += CeilDivide(tensor.elements(), input.options.block_size);
  }
  if (blocks <= kMaxBlocks / input.experts.size()) return {};
  const uint64_t factor = CeilDivide(blocks * input.experts.size(), kMaxBlocks);
  return Fail(ErrorKind::kUsage, "--block-size",
              std::to_string(input.options.block_size) + " makes " + std::to_string(blocks) +
                  " blocks, too many to plan",
              "give " + std::to_string(input.options.block_size * factor) + " or more");
}

Result<Plan> MatchAll(const PlanInput& input) {
  MERGEPIPE_RETURN_IF_ERROR(FindScoring(input.options.scoring));
  MERGEPIPE_RETURN_IF_ERROR(CheckPairCount(input));
  Plan plan;
  plan.options = input.options;
  MERGEPIPE_RETURN_IF_ERROR(MatchTensors(input, plan));
  return plan;
}

// Everything that the scores decide, and what it comes to.
Status Select(const PlanInput& input, const PairTable& pairs, Plan& plan) {
  MERGEPIPE_RETURN_IF_ERROR(SelectPairs(input, pairs, plan));
  StateEnergy(pairs, plan);
  StateErrorBound(input, pairs, plan);
  return ValidatePlan(plan, input.observation_rounds);
}

Status CheckAllExact(const PlanInput& input) {
  for (uint32_t k = 0; k < input.experts.size(); ++k) {
    if (input.KindOf(k) == StatisticsKind::kExact) continue;
    return Fail(ErrorKind::kUsage, "--sweep",
                "the catalog has no exact statistics of expert " + Quote(input.experts[k]->id) +
                    " at block size " + std::to_string(input.options.block_size),
                "run `mergepipe analyze` first");
  }
  return {};
}

// One point of a sweep; `pairs` are scored and within --top-p.
Result<SweepPoint> PlanAt(const PlanInput& input, const Plan& scored, const PairTable& pairs,
                          double percent) {
  const double share = percent / 100 * static_cast<double>(scored.CandidateBytes());
  PlanInput at = input;
  at.options.budget_bytes = static_cast<uint64_t>(share);
  at.allow_empty = true;
  SweepPoint point{percent, *at.options.budget_bytes, 0, 0, 0, std::nullopt};
  Plan plan = scored;
  plan.options = at.options;
  MERGEPIPE_RETURN_IF_ERROR(ReserveFixedReads(at, plan));
  if (FixedBytes(plan) > point.budget_bytes) return point;
  MERGEPIPE_RETURN_IF_ERROR(Select(at, pairs, plan));
  point.planned_bytes = plan.PlannedBytes();
  point.touched_blocks = plan.TouchedBlocks();
  point.energy_covered = EnergyCovered(plan).value_or(0);
  point.bound = plan.bound;
  return point;
}

}  // namespace

Result<Plan> StartPlan(const PlanInput& input) {
  MERGEPIPE_ASSIGN_OR_RETURN(Plan plan, MatchAll(input));
  MERGEPIPE_RETURN_IF_ERROR(ReserveFixedReads(input, plan));
  return plan;
}

bool NeedsScores(const PlanInput& input, const Plan& started) {
  const auto scoring = FindScoring(input.options.scoring);
  return scoring && (*scoring)->needs_statistics && started.CandidateBytes() > 0 &&
         !EverythingFits(input, started);
}

Result<Plan> MakePlan(const PlanInput& input) {
  MERGEPIPE_ASSIGN_OR_RETURN(Plan plan, StartPlan(input));
  MERGEPIPE_RETURN_IF_ERROR(ReserveProbe(input, plan));
  PairTable pairs(plan);
  MERGEPIPE_RETURN_IF_ERROR(ScorePairs(input, plan, pairs));
  MERGEPIPE_RETURN_IF_ERROR(LimitTouchedBlocks(plan, pairs));
  MERGEPIPE_RETURN_IF_ERROR(Select(input, pairs, plan));
  return plan;
}

Result<std::vector<SweepPoint>> SweepBudgets(const PlanInput& input,
                                             const std::vector<double>& percents) {
  MERGEPIPE_RETURN_IF_ERROR(CheckAllExact(input));
  // With a budget of nothing not everything fits, so all pairs get their scores.
  PlanInput scoring = input;
  scoring.options.budget_bytes = 0;
  MERGEPIPE_ASSIGN_OR_RETURN(Plan scored, MatchAll(scoring));
  PairTable pairs(scored);
  MERGEPIPE_RETURN_IF_ERROR(ScorePairs(scoring, scored, pairs));
  MERGEPIPE_RETURN_IF_ERROR(LimitTouchedBlocks(scored, pairs));
  std::vector<SweepPoint> points;
  for (const double percent : percents) {
    MERGEPIPE_ASSIGN_OR_RETURN(const SweepPoint point, PlanAt(input, scored, pairs, percent));
    points.push_back(point);
  }
  return points;
}

Status CheckPlanFits(const Plan& plan, const PlanInput& input) {
  Plan fresh;
  fresh.options = plan.options;
  MERGEPIPE_RETURN_IF_ERROR(MatchTensors(input, fresh));
  const auto same = [](const PlannedTensor& a, const PlannedTensor& b) {
    return a.name == b.name && a.dtype == b.dtype && a.out_dtype == b.out_dtype &&
           a.shape == b.shape && a.rule == b.rule && a.sources == b.sources;
  };
  if (!std::equal(plan.tensors.begin(), plan.tensors.end(), fresh.tensors.begin(),
                  fresh.tensors.end(), same)) {
    return Fail(ErrorKind::kBadInput, "plan", "does not fit these inputs",
                "give the inputs of the run");
  }
  MERGEPIPE_RETURN_IF_ERROR(ReserveFixedReads(input, fresh));
  if (plan.fingerprint_bytes != fresh.fingerprint_bytes) {
    return Fail(ErrorKind::kBadInput, "plan", "charges other fingerprints than these inputs have",
                "give the inputs of the run");
  }
  if (const Status valid = ValidatePlan(plan, input.observation_rounds); !valid) {
    return Fail(ErrorKind::kBadInput, "plan", valid.error().problems().front().what);
  }
  return {};
}

}  // namespace mergepipe
