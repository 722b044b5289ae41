#include <algorithm>
#include <cmath>
#include <limits>

#include "plan/passes.h"

namespace mergepipe {
namespace {

// ceil(p * n), without letting a rounding error of the product add a block (0.07 * 100 > 7).
uint64_t TouchableBlocks(double p, uint64_t n) {
  const double product = p * static_cast<double>(n);
  const double nearest = std::nearbyint(product);
  const bool whole = std::abs(product - nearest) <= 1e-9 * std::max(1.0, product);
  return std::min(
      n, std::max<uint64_t>(1, static_cast<uint64_t>(whole ? nearest : std::ceil(product))));
}

struct RankedBlock {
  double sum;
  uint64_t first_pair;
};

// Blocks with at least one candidate, with the sum of their scores in expert order.
std::vector<RankedBlock> SumBlocks(const PairTable& pairs) {
  std::vector<RankedBlock> blocks;
  for (uint64_t first = 0; first < pairs.size(); first += pairs.experts()) {
    double sum = 0;
    bool candidate = false;
    for (uint64_t i = first; i < first + pairs.experts(); ++i) {
      if (pairs.scores[i] == PairTable::kNotACandidate) continue;
      candidate = true;
      sum += pairs.scores[i];
    }
    if (candidate) blocks.push_back({sum, first});
  }
  return blocks;
}

uint64_t LeftForMerging(const Plan& plan) {
  if (!plan.options.budget_bytes) return std::numeric_limits<uint64_t>::max();
  return *plan.options.budget_bytes - std::min(FixedBytes(plan), *plan.options.budget_bytes);
}

// What is spent, and what a further pair of a tensor would cost: a tensor that outgrows
// resident_bytes is read again in every observation round, the pairs it already has included.
class Spending {
 public:
  Spending(const PlanInput& input, const Plan& plan)
      : options_(input.options),
        rounds_(input.observation_rounds),
        tensor_bytes_(plan.tensors.size()),
        left_(LeftForMerging(plan)) {}

  bool Take(uint32_t tensor, uint64_t bytes) {
    const uint64_t before = tensor_bytes_[tensor];
    const uint64_t cost = Charge(before + bytes) - Charge(before);
    if (cost > left_) return false;
    left_ -= cost;
    spent_ += cost;
    tensor_bytes_[tensor] += bytes;
    return true;
  }

  uint64_t spent() const { return spent_; }
  uint64_t left() const { return left_; }

 private:
  uint64_t Charge(uint64_t selected_bytes) const {
    return selected_bytes * ReadsFor(options_, rounds_, selected_bytes);
  }

  const PlanOptions& options_;
  int rounds_;
  std::vector<uint64_t> tensor_bytes_;
  uint64_t left_;
  uint64_t spent_ = 0;
};

uint64_t PairBytes(const Plan& plan, const PairTable::Pair& pair) {
  const PlannedTensor& tensor = plan.tensors[pair.tensor];
  return tensor.BlockElements(pair.block, plan.options.block_size) *
         DTypeSize(tensor.sources[pair.expert].dtype);
}

bool FixedReadsFit(const Plan& plan) {
  return !plan.options.budget_bytes || FixedBytes(plan) <= *plan.options.budget_bytes;
}

// A pair that may be taken; best first, ties in the table's order.
struct Candidate {
  double score_per_byte;
  uint64_t index;
  bool operator<(const Candidate& other) const {
    return score_per_byte != other.score_per_byte ? score_per_byte > other.score_per_byte
                                                  : index < other.index;
  }
};

std::vector<Candidate> RankCandidates(const Plan& plan, const PairTable& pairs) {
  std::vector<Candidate> order;
  for (uint32_t t = 0; t < plan.tensors.size(); ++t) {
    const PlannedTensor& tensor = plan.tensors[t];
    BlockIndex block;
    for (uint64_t i = pairs.TensorBegin(t); i < pairs.TensorEnd(t); ++block) {
      const uint64_t elements = tensor.BlockElements(block, plan.options.block_size);
      for (uint32_t k = 0; k < pairs.experts(); ++k, ++i) {
        if (pairs.scores[i] == PairTable::kNotACandidate) continue;
        const uint64_t bytes = elements * DTypeSize(tensor.sources[k].dtype);
        order.push_back({pairs.scores[i] / static_cast<double>(bytes), i});
      }
    }
  }
  std::sort(order.begin(), order.end());
  return order;
}

// Bytes of the smallest candidate, all its reads included; 0 if there is none.
uint64_t SmallestCharge(const PlanInput& input, const Plan& plan, const PairTable& pairs,
                        const std::vector<Candidate>& order) {
  if (order.empty()) return 0;
  uint64_t smallest = std::numeric_limits<uint64_t>::max();
  for (const Candidate& candidate : order)
    smallest = std::min(smallest, PairBytes(plan, pairs.At(candidate.index)));
  return smallest * ReadsFor(plan.options, input.observation_rounds, smallest);
}

// A pair that can be read with this much is a candidate at every larger budget too. With a probe,
// which the budget makes finer, other scores may leave other blocks within --top-p.
uint64_t SureCharge(const PlanInput& input, const Plan& plan, const PairTable& pairs,
                    const std::vector<Candidate>& order) {
  if (order.empty() || plan.probe_stride == 0) return SmallestCharge(input, plan, pairs, order);
  return LargestCharge(input, plan);
}

void TakeBest(const PairTable& pairs, const std::vector<Candidate>& order, Spending& spending,
              Plan& plan) {
  // The fractional knapsack over the same items, each at its cheapest: an upper bound of any
  // selection.
  auto fractional_left = static_cast<double>(spending.left());
  for (const Candidate& candidate : order) {
    const PairTable::Pair pair = pairs.At(candidate.index);
    PlannedTensor& tensor = plan.tensors[pair.tensor];
    const uint64_t bytes = PairBytes(plan, pair);
    const double part = std::min(1.0, fractional_left / static_cast<double>(bytes));
    plan.objective_bound += part * pairs.scores[candidate.index];
    fractional_left = std::max(0.0, fractional_left - part * static_cast<double>(bytes));
    if (!spending.Take(pair.tensor, bytes)) {
      plan.cutoff_score_per_byte = std::max(plan.cutoff_score_per_byte, candidate.score_per_byte);
      tensor.best_left_score_per_byte =
          std::max(tensor.best_left_score_per_byte, candidate.score_per_byte);
      continue;
    }
    tensor.selected[pair.expert].Add(pair.block);
    plan.objective += pairs.scores[candidate.index];
  }
}

// Bytes of the experts' tensors that are compared with the base's.
uint64_t CompareBytes(const Plan& plan) {
  uint64_t bytes = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.compare) bytes += tensor.ExpertBytes();
  }
  return bytes;
}

}  // namespace

uint64_t FixedBytes(const Plan& plan) {
  return plan.fingerprint_bytes + plan.probe_bytes + plan.compare_bytes;
}

uint32_t ReadsFor(const PlanOptions& options, int observation_rounds, uint64_t selected_bytes) {
  if (selected_bytes <= options.resident_bytes) return 1;
  return 1 + static_cast<uint32_t>(observation_rounds);
}

bool EverythingFits(const PlanInput& input, const Plan& plan) {
  if (plan.options.top_p < 1) return false;
  if (!plan.options.budget_bytes) return true;
  Bytes all(FixedBytes(plan));
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.rule != TensorRule::kMerge) continue;
    const uint64_t bytes = tensor.ExpertBytes();
    all += Bytes(bytes * ReadsFor(plan.options, input.observation_rounds, bytes));
  }
  return all <= Bytes(*plan.options.budget_bytes);
}

uint64_t LargestCharge(const PlanInput& input, const Plan& plan) {
  uint64_t largest = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.rule != TensorRule::kMerge) continue;
    const uint64_t elements = std::min(plan.options.block_size, tensor.elements());
    for (const ExpertSource& source : tensor.sources) {
      if (source.present) largest = std::max(largest, elements * DTypeSize(source.dtype));
    }
  }
  return largest * ReadsFor(plan.options, input.observation_rounds, largest);
}

Status LimitTouchedBlocks(Plan& plan, PairTable& pairs) {
  if (plan.options.top_p >= 1) return {};
  std::vector<RankedBlock> blocks = SumBlocks(pairs);
  const uint64_t keep =
      std::min<uint64_t>(blocks.size(), TouchableBlocks(plan.options.top_p, plan.MergeBlocks()));
  const auto better = [](const RankedBlock& a, const RankedBlock& b) {
    return a.sum != b.sum ? a.sum > b.sum : a.first_pair < b.first_pair;
  };
  std::nth_element(blocks.begin(), blocks.begin() + static_cast<std::ptrdiff_t>(keep), blocks.end(),
                   better);
  for (auto block = blocks.begin() + static_cast<std::ptrdiff_t>(keep); block != blocks.end();
       ++block) {
    const auto first = pairs.scores.begin() + static_cast<std::ptrdiff_t>(block->first_pair);
    std::fill(first, first + pairs.experts(), PairTable::kNotACandidate);
    ++plan.tensors[pairs.At(block->first_pair).tensor].blocks_beyond_top_p;
  }
  return {};
}

Status SelectPairs(const PlanInput& input, const PairTable& pairs, Plan& plan) {
  const std::vector<Candidate> order = RankCandidates(plan, pairs);
  Spending spending(input, plan);
  TakeBest(pairs, order, spending, plan);
  plan.merge_bytes = spending.spent();
  const bool nothing_read = !order.empty() && plan.merge_bytes == 0;
  if (!FixedReadsFit(plan) || (nothing_read && !input.allow_empty)) {
    return tl::unexpected(BudgetTooSmall(input, plan, "a single block",
                                         SureCharge(input, plan, pairs, order),
                                         ProbedExperts(input)));
  }
  for (PlannedTensor& tensor : plan.tensors) {
    tensor.reads = ReadsFor(plan.options, input.observation_rounds,
                            tensor.SelectedBytes(plan.options.block_size));
  }
  return {};
}

Status ValidatePlan(const Plan& plan, int observation_rounds) {
  const auto defect = [](const std::string& what) {
    return Fail(ErrorKind::kInternal, "plan", what, "please report this defect");
  };
  uint64_t merge_bytes = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    const uint64_t selected = tensor.SelectedBytes(plan.options.block_size);
    if (tensor.reads != ReadsFor(plan.options, observation_rounds, selected)) {
      return defect("tensor '" + tensor.name + "' has a wrong number of reads");
    }
    for (size_t k = 0; k < tensor.selected.size(); ++k) {
      if (!tensor.selected[k].Empty() &&
          (!tensor.sources[k].present || tensor.rule != TensorRule::kMerge)) {
        return defect("tensor '" + tensor.name + "' selects blocks that are not there");
      }
      if (tensor.selected[k].Intersects(tensor.equal[k]))
        return defect("tensor '" + tensor.name + "' selects blocks that are equal to the base's");
    }
    merge_bytes += selected * tensor.reads;
  }
  if (merge_bytes != plan.merge_bytes || CompareBytes(plan) != plan.compare_bytes)
    return defect("the planned bytes do not add up");
  if (plan.options.budget_bytes && plan.PlannedBytes() > *plan.options.budget_bytes) {
    return defect("the planned bytes are over the budget");
  }
  if (plan.TouchedBlocks() > TouchableBlocks(plan.options.top_p, plan.MergeBlocks())) {
    return defect("more blocks are touched than --top-p allows");
  }
  return {};
}

}  // namespace mergepipe
