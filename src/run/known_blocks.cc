#include "run/known_blocks.h"

namespace mergepipe {
namespace {

template <typename Statistics>
Result<std::vector<Hash128>> HashesOf(const std::vector<Statistics>& statistics,
                                      const PlannedTensor& tensor, uint64_t block_size) {
  if (statistics.size() != tensor.Blocks(block_size)) {
    return Fail(ErrorKind::kInternal, "tensor '" + tensor.name + "'",
                "has statistics of another number of blocks", "please report this defect");
  }
  std::vector<Hash128> hashes;
  hashes.reserve(statistics.size());
  for (const Statistics& block : statistics) hashes.push_back(block.hash);
  return hashes;
}

}  // namespace

Status KnownBlocks::LoadExpert(uint32_t expert, uint32_t tensor) {
  const PlannedTensor& planned = plan_.tensors[tensor];
  const bool asks = planned.sources[expert].present && !planned.selected[expert].Empty() &&
                    statistics_->KindOf(expert) == StatisticsKind::kExact;
  experts_[expert].clear();
  if (!asks) return {};
  MERGEPIPE_ASSIGN_OR_RETURN(const auto blocks, statistics_->OfExpert(expert, tensor));
  MERGEPIPE_ASSIGN_OR_RETURN(experts_[expert], HashesOf(blocks, planned, plan_.options.block_size));
  return {};
}

Status KnownBlocks::Load(uint32_t tensor) {
  if (tensor_ == tensor) return {};
  const PlannedTensor& planned = plan_.tensors[tensor];
  experts_.resize(planned.sources.size());
  for (uint32_t k = 0; k < planned.sources.size(); ++k)
    MERGEPIPE_RETURN_IF_ERROR(LoadExpert(k, tensor));
  MERGEPIPE_ASSIGN_OR_RETURN(const auto base, statistics_->OfBase(tensor));
  base_.clear();
  if (!base.empty()) {
    MERGEPIPE_ASSIGN_OR_RETURN(base_, HashesOf(base, planned, plan_.options.block_size));
  }
  tensor_ = tensor;
  return {};
}

Status KnownBlocks::AddTo(TensorPart& part) {
  if (statistics_ == nullptr || !IsFloat(part.base.dtype)) return {};
  MERGEPIPE_RETURN_IF_ERROR(Load(part.tensor));
  if (!base_.empty()) {
    const auto first = base_.begin() + static_cast<std::ptrdiff_t>(part.begin);
    const auto last = base_.begin() + static_cast<std::ptrdiff_t>(part.end);
    part.known_base_hashes.assign(first, last);
  }
  part.known_hashes.resize(part.selected.size());
  for (size_t k = 0; k < part.selected.size(); ++k) {
    if (experts_[k].empty()) continue;
    part.selected[k].ForEachRun([&](BlockIndex first, BlockIndex last) {
      for (uint64_t block = first.value; block < last.value; ++block)
        part.known_hashes[k].push_back(experts_[k][block]);
    });
  }
  return {};
}

}  // namespace mergepipe
