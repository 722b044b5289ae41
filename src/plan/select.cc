#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

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
  const uint64_t fixed = plan.fingerprint_bytes + plan.compare_bytes;
  return *plan.options.budget_bytes - std::min(fixed, *plan.options.budget_bytes);
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
  return !plan.options.budget_bytes ||
         plan.fingerprint_bytes + plan.compare_bytes <= *plan.options.budget_bytes;
}

// `smallest_charge`: what the cheapest pair costs, all its reads included.
Error BudgetTooSmall(const PlanInput& input, const Plan& plan, uint64_t smallest_charge) {
  const uint64_t fixed = plan.fingerprint_bytes + plan.compare_bytes;
  uint64_t needed = CeilDivide(fixed + smallest_charge, kMiB);
  // A larger budget may also compare the integer tensors.
  const uint64_t uncompared = IntegerBytes(plan) - plan.compare_bytes;
  if (uncompared <= needed * kMiB / kCompareShare)
    needed = CeilDivide(fixed + smallest_charge + uncompared, kMiB);
  return Error(ErrorKind::kUsage, "--io-budget-mb",
               "a budget of " + FormatBytes(Bytes(*input.options.budget_bytes)) +
                   " is too small to read a single block (" + FormatBytes(Bytes(fixed)) +
                   " go to fingerprints and integer tensors)",
               "give at least " + std::to_string(needed) + " MiB, or a smaller --block-size");
}

}  // namespace

uint32_t ReadsFor(const PlanOptions& options, int observation_rounds, uint64_t selected_bytes) {
  if (selected_bytes <= options.resident_bytes) return 1;
  return 1 + static_cast<uint32_t>(observation_rounds);
}

Status LimitTouchedBlocks(const Plan& plan, PairTable& pairs) {
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
  }
  return {};
}

Status SelectPairs(const PlanInput& input, const PairTable& pairs, Plan& plan) {
  struct Candidate {
    double score_per_byte;
    uint64_t index;
  };
  std::vector<Candidate> order;
  uint64_t smallest = 0;
  for (uint64_t i = 0; i < pairs.size(); ++i) {
    if (pairs.scores[i] == PairTable::kNotACandidate) continue;
    const uint64_t bytes = PairBytes(plan, pairs.At(i));
    smallest = order.empty() ? bytes : std::min(smallest, bytes);
    order.push_back({pairs.scores[i] / static_cast<double>(bytes), i});
  }
  std::sort(order.begin(), order.end(), [](const Candidate& a, const Candidate& b) {
    return a.score_per_byte != b.score_per_byte ? a.score_per_byte > b.score_per_byte
                                                : a.index < b.index;
  });

  Spending spending(input, plan);
  // The fractional knapsack over the same items, each at its cheapest: an upper bound of any
  // selection.
  double fractional_left = static_cast<double>(spending.left());
  for (const Candidate& candidate : order) {
    const PairTable::Pair pair = pairs.At(candidate.index);
    const uint64_t bytes = PairBytes(plan, pair);
    const double part = std::min(1.0, fractional_left / static_cast<double>(bytes));
    plan.objective_bound += part * pairs.scores[candidate.index];
    fractional_left -= part * static_cast<double>(bytes);
    if (!spending.Take(pair.tensor, bytes)) continue;
    plan.tensors[pair.tensor].selected[pair.expert].Add(pair.block);
    plan.objective += pairs.scores[candidate.index];
  }
  plan.merge_bytes = spending.spent();
  if (!FixedReadsFit(plan) || (!order.empty() && plan.merge_bytes == 0)) {
    const uint64_t charge = smallest * ReadsFor(plan.options, input.observation_rounds, smallest);
    return tl::unexpected(BudgetTooSmall(input, plan, charge));
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
    }
    merge_bytes += selected * tensor.reads;
  }
  if (merge_bytes != plan.merge_bytes) return defect("the planned bytes do not add up");
  if (plan.options.budget_bytes && plan.PlannedBytes() > *plan.options.budget_bytes) {
    return defect("the planned bytes are over the budget");
  }
  if (plan.TouchedBlocks() > TouchableBlocks(plan.options.top_p, plan.MergeBlocks())) {
    return defect("more blocks are touched than --top-p allows");
  }
  return {};
}

}  // namespace mergepipe
