#include "mergepipe/plan/planner.h"

#include <algorithm>

#include "plan/passes.h"

namespace mergepipe {
namespace {

uint64_t CandidateBytes(const Plan& plan) {
  uint64_t bytes = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.rule != TensorRule::kMerge) continue;
    for (const ExpertSource& source : tensor.sources) {
      if (source.present) bytes += tensor.elements() * DTypeSize(source.dtype);
    }
  }
  return bytes;
}

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

}  // namespace

Result<Plan> MakePlan(const PlanInput& input) {
  MERGEPIPE_RETURN_IF_ERROR(CheckPairCount(input));
  Plan plan;
  plan.options = input.options;
  MERGEPIPE_RETURN_IF_ERROR(MatchTensors(input, plan));
  MERGEPIPE_RETURN_IF_ERROR(ReserveFixedReads(input, plan));

  PairTable pairs(plan);
  const bool everything_may_be_read = input.options.top_p >= 1 && !input.options.budget_bytes;
  if (!everything_may_be_read && CandidateBytes(plan) > 0) {
    MERGEPIPE_ASSIGN_OR_RETURN(const ScoringPass score, FindScoring(input.options.scoring));
    MERGEPIPE_RETURN_IF_ERROR(score(input, plan, pairs));
  }
  MERGEPIPE_RETURN_IF_ERROR(LimitTouchedBlocks(plan, pairs));
  MERGEPIPE_RETURN_IF_ERROR(SelectPairs(input, pairs, plan));
  MERGEPIPE_RETURN_IF_ERROR(ValidatePlan(plan, input.observation_rounds));
  return plan;
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
  if (const Status valid = ValidatePlan(plan, input.observation_rounds); !valid) {
    return Fail(ErrorKind::kBadInput, "plan", valid.error().problems().front().what);
  }
  return {};
}

}  // namespace mergepipe
