#include "plan/pair_table.h"

#include <algorithm>

namespace mergepipe {

PairTable::PairTable(const Plan& plan) : experts_(static_cast<uint32_t>(plan.experts.size())) {
  uint64_t total = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    tensor_begin_.push_back(total);
    if (tensor.rule == TensorRule::kMerge)
      total += tensor.Blocks(plan.options.block_size) * experts_;
  }
  tensor_begin_.push_back(total);
  scores.assign(total, 0);
  energies.assign(total, kUnknown);
  for (uint32_t t = 0; t < plan.tensors.size(); ++t) {
    for (uint64_t i = TensorBegin(t); i < TensorEnd(t); ++i) {
      if (!plan.tensors[t].sources[(i - TensorBegin(t)) % experts_].present)
        scores[i] = kNotACandidate;
    }
  }
}

PairTable::Pair PairTable::At(uint64_t index) const {
  const auto next = std::upper_bound(tensor_begin_.begin(), tensor_begin_.end(), index);
  const auto tensor = static_cast<uint32_t>(next - tensor_begin_.begin() - 1);
  const uint64_t within = index - tensor_begin_[tensor];
  return {tensor, BlockIndex(within / experts_), static_cast<uint32_t>(within % experts_)};
}

}  // namespace mergepipe
