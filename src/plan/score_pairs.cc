#include <algorithm>
#include <cmath>

#include "mergepipe/base/text.h"
#include "plan/passes.h"
#include "plan/tensor_deltas.h"

namespace mergepipe {
namespace {

Status CheckStatistics(const PlanInput& input) {
  for (uint32_t k = 0; k < input.experts.size(); ++k) {
    if (input.KindOf(k) != StatisticsKind::kNone) continue;
    return Fail(ErrorKind::kUsage, "--scoring",
                Quote(input.options.scoring) + " needs statistics of expert " +
                    Quote(input.experts[k]->id) + " at block size " +
                    std::to_string(input.options.block_size) + ", and the catalog has none",
                "run `mergepipe analyze` first, allow a probe (--analyze auto), or pass "
                "--scoring uniform");
  }
  return {};
}

// Whether the statistics that lack could not be had by a probe either.
bool OutOfReach(const PlanInput& input, const Plan& plan) {
  std::vector<uint32_t> lacking;
  for (uint32_t k = 0; k < input.experts.size(); ++k) {
    if (input.KindOf(k) == StatisticsKind::kNone) lacking.push_back(k);
  }
  return !FinestProbe(input, plan, lacking);
}

bool AllExact(const PlanInput& input) {
  for (uint32_t k = 0; k < input.experts.size(); ++k) {
    if (input.KindOf(k) != StatisticsKind::kExact) return false;
  }
  return true;
}

class Scorer {
 public:
  Scorer(const PlanInput& input, Plan& plan, PairTable& pairs, const ScoringRow* scoring)
      : input_(input),
        plan_(plan),
        pairs_(pairs),
        scoring_(scoring),
        deltas_(input, plan),
        scores_(pairs.experts()),
        base_known_(input.coefficients.has_value()) {
    pairs.exact = AllExact(input);
  }

  Status Score(uint32_t tensor) {
    MERGEPIPE_RETURN_IF_ERROR(deltas_.Load(tensor));
    if (base_known_ && pairs_.exact) MERGEPIPE_RETURN_IF_ERROR(AddBaseNorms(tensor));
    const Hash128 name = HashText(plan_.tensors[tensor].name);
    uint64_t block = 0;
    for (uint64_t first = pairs_.TensorBegin(tensor); first < pairs_.TensorEnd(tensor);
         first += pairs_.experts()) {
      ScoreBlock(tensor, {name, block++}, first);
    }
    return {};
  }

  void Finish() {
    plan_.statistics = deltas_.Used();
    if (!base_known_ || !pairs_.exact) pairs_.base_norms.clear();
  }

 private:
  void ScoreBlock(uint32_t tensor, const BlockPlace& place, uint64_t first) {
    const auto known = deltas_.Block(place.block);
    std::fill(scores_.begin(), scores_.end(), 0.0);
    if (scoring_ != nullptr)
      scoring_->score(place, input_.options.strategy.weights, known, scores_);
    for (uint32_t k = 0; k < known.size(); ++k) {
      const uint64_t pair = first + k;
      if (known[k].kind != StatisticsKind::kNone) pairs_.energies[pair] = known[k].sum_squares;
      if (!std::isfinite(known[k].max_abs)) pairs_.exact = false;
      if (deltas_.Equal(k, place.block)) {
        plan_.tensors[tensor].equal[k].Add(BlockIndex(place.block));
        pairs_.scores[pair] = PairTable::kNotACandidate;
      }
      if (pairs_.scores[pair] != PairTable::kNotACandidate) pairs_.scores[pair] = scores_[k];
    }
  }

  Status AddBaseNorms(uint32_t tensor) {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto base, input_.statistics->OfBase(tensor));
    const uint64_t pairs = pairs_.TensorEnd(tensor) - pairs_.TensorBegin(tensor);
    if (base.size() * pairs_.experts() != pairs) base_known_ = false;
    for (const BaseBlockStatistics& block : base)
      pairs_.base_norms.push_back(std::sqrt(block.sum_squares));
    return {};
  }

  const PlanInput& input_;
  Plan& plan_;
  PairTable& pairs_;
  const ScoringRow* scoring_;
  DeltaReader deltas_;
  std::vector<double> scores_;
  bool base_known_;  // and needed
};

}  // namespace

Status ScorePairs(const PlanInput& input, Plan& plan, PairTable& pairs) {
  MERGEPIPE_ASSIGN_OR_RETURN(const ScoringRow* scoring, FindScoring(input.options.scoring));
  if (NeedsScores(input, plan)) {
    if (const Status known = CheckStatistics(input); !known) {
      if (!input.allow_empty || !OutOfReach(input, plan)) return known;
      std::fill(pairs.scores.begin(), pairs.scores.end(), PairTable::kNotACandidate);
      scoring = nullptr;
    }
  }
  Scorer scorer(input, plan, pairs, EverythingFits(input, plan) ? nullptr : scoring);
  for (uint32_t t = 0; t < plan.tensors.size(); ++t) {
    if (plan.tensors[t].rule == TensorRule::kMerge) MERGEPIPE_RETURN_IF_ERROR(scorer.Score(t));
  }
  scorer.Finish();
  return {};
}

}  // namespace mergepipe
