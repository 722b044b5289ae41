#include "plan/tensor_deltas.h"

#include <cmath>

#include "mergepipe/base/text.h"

namespace mergepipe {

DeltaReader::DeltaReader(const PlanInput& input, const Plan& plan)
    : input_(input),
      plan_(plan),
      numbering_(input.base->layout, input.options.block_size),
      hashers_(plan.experts.size()),
      loaded_(plan.experts.size()),
      carried_(plan.experts.size()),
      next_probe_(plan.experts.size()),
      block_(plan.experts.size()) {}

Status DeltaReader::Load(uint32_t tensor) {
  tensor_ = tensor;
  const PlannedTensor& planned = plan_.tensors[tensor];
  const uint64_t blocks = planned.Blocks(plan_.options.block_size);
  for (uint32_t k = 0; k < loaded_.size(); ++k) {
    loaded_[k].clear();
    next_probe_[k] = 0;
    const StatisticsKind kind = input_.KindOf(k);
    if (kind == StatisticsKind::kNone || !planned.sources[k].present || blocks == 0) continue;
    MERGEPIPE_ASSIGN_OR_RETURN(loaded_[k], input_.statistics->OfExpert(k, tensor));
    const uint64_t expected = kind == StatisticsKind::kExact
                                  ? blocks
                                  : numbering_.Probed(tensor, plan_.probe_stride).Count();
    if (loaded_[k].size() != expected) {
      return Fail(ErrorKind::kInternal, "statistics of " + Quote(plan_.experts[k].id),
                  "tensor " + Quote(planned.name) + " has " + std::to_string(loaded_[k].size()) +
                      " blocks, not " + std::to_string(expected));
    }
    hashers_[k].Update(uint64_t{tensor});
    hashers_[k].Update(std::as_bytes(std::span(loaded_[k])));
  }
  return {};
}

KnownDelta DeltaReader::Exact(size_t expert, uint64_t block) const {
  const BlockStatistics& known = loaded_[expert][block];
  return {StatisticsKind::kExact, known.sum_squares, static_cast<double>(known.max_abs), 0,
          &known.sketch};
}

KnownDelta DeltaReader::Probed(size_t expert, uint64_t block) {
  Carried& carried = carried_[expert];
  const PlannedTensor& planned = plan_.tensors[tensor_];
  const uint64_t elements = planned.BlockElements(BlockIndex(block), plan_.options.block_size);
  if ((numbering_.FirstNumber(tensor_) + block) % plan_.probe_stride == 0) {
    carried.statistics = loaded_[expert][next_probe_[expert]++];
    carried.sampled = ProbeSample(elements, planned.dtype).count;
  }
  if (carried.sampled == 0) return {StatisticsKind::kProbe, 0, 0, 0, nullptr};
  const double scale = static_cast<double>(elements) / static_cast<double>(carried.sampled);
  return {StatisticsKind::kProbe, carried.statistics.sum_squares * scale,
          static_cast<double>(carried.statistics.max_abs), 0, &carried.statistics.sketch};
}

std::span<const KnownDelta> DeltaReader::Block(uint64_t block) {
  const PlannedTensor& planned = plan_.tensors[tensor_];
  for (uint32_t k = 0; k < block_.size(); ++k) {
    block_[k] = {};
    if (!planned.sources[k].present) continue;
    switch (input_.KindOf(k)) {
      case StatisticsKind::kNone: break;
      case StatisticsKind::kExact: block_[k] = Exact(k, block); break;
      case StatisticsKind::kProbe: block_[k] = Probed(k, block); break;
    }
    block_[k].elements = planned.BlockElements(BlockIndex(block), plan_.options.block_size);
  }
  return block_;
}

bool DeltaReader::Equal(size_t expert, uint64_t block) const {
  return block_[expert].kind == StatisticsKind::kExact && loaded_[expert][block].nonzeros == 0;
}

std::vector<PlannedStatistics> DeltaReader::Used() const {
  std::vector<PlannedStatistics> used;
  for (uint32_t k = 0; k < hashers_.size(); ++k) {
    const StatisticsKind kind = input_.KindOf(k);
    used.push_back({kind, kind == StatisticsKind::kNone ? Hash128() : hashers_[k].Finish()});
  }
  return used;
}

}  // namespace mergepipe
