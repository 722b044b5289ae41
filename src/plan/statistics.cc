#include "mergepipe/plan/statistics.h"

#include <algorithm>

#include "mergepipe/base/checked.h"

namespace mergepipe {

BlockSample ProbeSample(uint64_t block_elements, DType base_dtype) {
  const uint64_t count = std::min(block_elements, kProbeBytes / DTypeSize(base_dtype));
  return {(block_elements - count) / 2, count};
}

ProbeNumbering::ProbeNumbering(const ModelLayout& base, uint64_t block_size) {
  first_.reserve(base.tensors.size() + 1);
  first_.push_back(0);
  for (const TensorInfo& tensor : base.tensors) {
    const uint64_t blocks = IsFloat(tensor.dtype) ? CeilDivide(tensor.elements(), block_size) : 0;
    first_.push_back(first_.back() + blocks);
  }
}

uint32_t ProbeNumbering::TensorOf(uint64_t number) const {
  return static_cast<uint32_t>(std::upper_bound(first_.begin(), first_.end(), number) -
                               first_.begin() - 1);
}

BlockSet ProbeNumbering::Probed(uint32_t tensor, uint64_t stride) const {
  const uint64_t first = first_[tensor];
  BlockSet probed(first_[tensor + 1] - first);
  for (uint64_t number = CeilDivide(first, stride) * stride; number < first_[tensor + 1];
       number += stride) {
    probed.Add(BlockIndex(number - first));
  }
  return probed;
}

}  // namespace mergepipe
