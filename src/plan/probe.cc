#include <algorithm>

#include "plan/passes.h"

namespace mergepipe {
namespace {

// Bytes that a probe of so many blocks reads; block sizes but the last one of a tensor are equal,
// so no block has to be visited.
class ProbeCost {
 public:
  ProbeCost(const PlanInput& input, const Plan& plan, const std::vector<uint32_t>& experts)
      : plan_(plan), numbering_(input.base->layout, input.options.block_size) {
    for (const PlannedTensor& tensor : plan.tensors) {
      uint64_t size = 0;  // of one element in all of these experts
      for (const uint32_t k : experts) {
        if (tensor.sources[k].present) size += DTypeSize(tensor.sources[k].dtype);
      }
      element_size_.push_back(IsFloat(tensor.dtype) ? size : 0);
    }
  }

  // Of any stride: the first block is always probed.
  uint64_t LeastBytes() const { return Bytes(std::max<uint64_t>(1, blocks())); }

  uint64_t Bytes(uint64_t stride) const {
    uint64_t bytes = 0;
    for (uint64_t number = 0; number < blocks();) {  // visits the tensors with a probed block
      const uint32_t t = numbering_.TensorOf(number);
      bytes += Samples(t, stride) * element_size_[t];
      number = CeilDivide(numbering_.FirstNumber(t + 1), stride) * stride;
    }
    return bytes;
  }

 private:
  uint64_t blocks() const { return numbering_.Count(); }

  // Sampled elements of a tensor.
  uint64_t Samples(uint32_t t, uint64_t stride) const {
    const PlannedTensor& tensor = plan_.tensors[t];
    const uint64_t block_size = plan_.options.block_size;
    const uint64_t first = numbering_.FirstNumber(t);
    const uint64_t end = numbering_.FirstNumber(t + 1);
    const uint64_t probed = CeilDivide(end, stride) - CeilDivide(first, stride);
    if (probed == 0) return 0;
    const uint64_t full = ProbeSample(std::min(block_size, tensor.elements()), tensor.dtype).count;
    if ((end - 1) % stride != 0) return probed * full;
    const uint64_t last = tensor.BlockElements(BlockIndex(end - 1 - first), block_size);
    return (probed - 1) * full + ProbeSample(last, tensor.dtype).count;
  }

  const Plan& plan_;
  ProbeNumbering numbering_;
  std::vector<uint64_t> element_size_;
};

}  // namespace

std::vector<uint32_t> ProbedExperts(const PlanInput& input) {
  std::vector<uint32_t> experts;
  for (uint32_t k = 0; k < input.experts.size(); ++k) {
    if (input.KindOf(k) == StatisticsKind::kProbe) experts.push_back(k);
  }
  return experts;
}

std::optional<ProbeReads> FinestProbe(const PlanInput& input, const Plan& started,
                                      const std::vector<uint32_t>& experts) {
  const ProbeCost cost(input, started, experts);
  if (!input.options.budget_bytes) return ProbeReads{1, cost.Bytes(1)};
  const uint64_t limit = *input.options.budget_bytes / kProbeShare;
  if (cost.LeastBytes() > limit) return std::nullopt;
  // One by one: as blocks differ in size, a coarser probe does not always cost less.
  uint64_t stride = 1;
  while (cost.Bytes(stride) > limit) ++stride;
  const ProbeReads probe{stride, cost.Bytes(stride)};
  const uint64_t fixed = FixedBytes(started) - started.probe_bytes;
  if (fixed + probe.bytes > *input.options.budget_bytes) return std::nullopt;
  return probe;
}

Result<ProbeReads> PlanProbe(const PlanInput& input, const Plan& started,
                             const std::vector<uint32_t>& experts) {
  if (const auto probe = FinestProbe(input, started, experts)) return *probe;
  if (input.allow_empty) return ProbeReads{0, 0};
  return tl::unexpected(BudgetTooSmall(input, started, "a probe and a block",
                                       LargestCharge(input, started), experts));
}

Status ReserveProbe(const PlanInput& input, Plan& plan) {
  plan.probe_bytes = input.analysis_bytes;
  const std::vector<uint32_t> experts = ProbedExperts(input);
  if (experts.empty()) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(const ProbeReads probe, PlanProbe(input, plan, experts));
  plan.probe_stride = probe.stride;
  plan.probe_bytes = probe.bytes;
  return {};
}

}  // namespace mergepipe
