#include "mergepipe/plan/plan.h"

#include <algorithm>

namespace mergepipe {

uint64_t PlannedTensor::ExpertBytes(size_t expert) const {
  return sources[expert].present ? elements() * DTypeSize(sources[expert].dtype) : 0;
}

uint64_t PlannedTensor::ExpertBytes() const {
  uint64_t bytes = 0;
  for (size_t k = 0; k < sources.size(); ++k) bytes += ExpertBytes(k);
  return bytes;
}

uint64_t PlannedTensor::BlockElements(BlockIndex block, uint64_t block_size) const {
  return std::min(block_size, elements() - block.value * block_size);
}

uint64_t PlannedTensor::ElementsOf(const BlockSet& blocks, uint64_t block_size) const {
  const uint64_t count = blocks.Count();
  if (count == 0) return 0;
  const BlockIndex last(blocks.size() - 1);
  if (!blocks.Contains(last)) return count * block_size;
  return (count - 1) * block_size + BlockElements(last, block_size);
}

uint64_t PlannedTensor::CountedElements(size_t expert, uint64_t block_size) const {
  return ElementsOf(selected[expert], block_size) + ElementsOf(equal[expert], block_size);
}

BlockSet PlannedTensor::Touched(uint64_t block_size) const {
  BlockSet touched(Blocks(block_size));
  for (const BlockSet& blocks : selected) touched.Unite(blocks);
  return touched;
}

uint64_t PlannedTensor::SelectedBytes(uint64_t block_size) const {
  uint64_t bytes = 0;
  for (size_t k = 0; k < selected.size(); ++k) {
    bytes += ElementsOf(selected[k], block_size) * DTypeSize(sources[k].dtype);
  }
  return bytes;
}

uint64_t Plan::CandidateBytes() const {
  uint64_t bytes = 0;
  for (const PlannedTensor& tensor : tensors) {
    if (tensor.rule == TensorRule::kMerge) bytes += tensor.ExpertBytes();
  }
  return bytes;
}

uint64_t Plan::MergeBlocks() const {
  uint64_t blocks = 0;
  for (const PlannedTensor& tensor : tensors) {
    if (tensor.rule == TensorRule::kMerge) blocks += tensor.Blocks(options.block_size);
  }
  return blocks;
}

uint64_t Plan::TouchedBlocks() const {
  uint64_t blocks = 0;
  for (const PlannedTensor& tensor : tensors) {
    if (tensor.rule == TensorRule::kMerge) blocks += tensor.Touched(options.block_size).Count();
  }
  return blocks;
}

}  // namespace mergepipe
