#include "mergepipe/plan/partition.h"

#include <algorithm>

namespace mergepipe {
namespace {

// Bytes of all blocks in [begin, end) of a tensor with elements of `size` bytes.
uint64_t BytesBetween(const PlannedTensor& tensor, BlockIndex begin, BlockIndex end,
                      uint64_t block_size, uint64_t size) {
  const auto at = [&](BlockIndex block) {
    return std::min(tensor.elements(), block.value * block_size);
  };
  return (at(end) - at(begin)) * size;
}

TensorRange WholeTensor(const Plan& plan, uint32_t tensor) {
  return {tensor, BlockIndex(0), BlockIndex(plan.tensors[tensor].Blocks(plan.options.block_size))};
}

// RangeCost of one block, without looking at the others.
uint64_t BlockCost(const Plan& plan, const PlannedTensor& tensor, BlockIndex block) {
  uint64_t per_element = DTypeSize(tensor.dtype) + DTypeSize(tensor.out_dtype);
  for (size_t k = 0; k < tensor.sources.size(); ++k) {
    const uint64_t size = DTypeSize(tensor.sources[k].dtype);
    if (tensor.selected[k].Contains(block)) per_element += size * tensor.reads;
    if (tensor.compare && tensor.sources[k].present) per_element += size;
  }
  return per_element * tensor.BlockElements(block, plan.options.block_size);
}

// The first block of `tensor` whose end reaches `cost` (measured from the tensor's start), rounded
// to the nearer boundary.
BlockIndex CutInside(const Plan& plan, uint32_t tensor, uint64_t cost) {
  const TensorRange whole = WholeTensor(plan, tensor);
  uint64_t sum = 0;
  for (BlockIndex block(0); block < whole.end; ++block) {
    const uint64_t block_cost = BlockCost(plan, plan.tensors[tensor], block);
    if (sum + block_cost >= cost)
      return cost - sum < block_cost - (cost - sum) ? block : BlockIndex(block.value + 1);
    sum += block_cost;
  }
  return whole.end;
}

struct Cut {
  uint32_t tensor = 0;
  BlockIndex block;
  auto operator<=>(const Cut&) const = default;
};

class Cutter {
 public:
  Cutter(const Plan& plan, int ranks) : plan_(plan), ranks_(static_cast<uint64_t>(ranks)) {
    tensor_begin_.push_back(0);
    for (uint32_t t = 0; t < plan.tensors.size(); ++t) {
      tensor_begin_.push_back(tensor_begin_.back() + RangeCost(plan, WholeTensor(plan, t)));
    }
  }

  // Where the slice of `rank` begins.
  Cut Begin(uint64_t rank) const {
    const auto tensors = static_cast<uint32_t>(plan_.tensors.size());
    if (rank == 0) return {};
    if (rank == ranks_) return {tensors, BlockIndex(0)};
    const uint64_t total = tensor_begin_.back();
    const uint64_t target = total / ranks_ * rank + total % ranks_ * rank / ranks_;
    const uint64_t slack = total / ranks_ / 200;  // a slice has two cuts
    const auto after = std::upper_bound(tensor_begin_.begin(), tensor_begin_.end(), target);
    if (after == tensor_begin_.end()) return {tensors, BlockIndex(0)};
    const auto tensor = static_cast<uint32_t>(after - tensor_begin_.begin() - 1);
    if (target - tensor_begin_[tensor] <= slack) return {tensor, BlockIndex(0)};
    if (*after - target <= slack) return {tensor + 1, BlockIndex(0)};
    const BlockIndex block = CutInside(plan_, tensor, target - tensor_begin_[tensor]);
    const bool at_end = block == WholeTensor(plan_, tensor).end;
    return at_end ? Cut{tensor + 1, BlockIndex(0)} : Cut{tensor, block};
  }

 private:
  const Plan& plan_;
  uint64_t ranks_;
  std::vector<uint64_t> tensor_begin_;  // cost before each tensor, and the total
};

PlanSlice SliceBetween(const Plan& plan, const Cut& begin, const Cut& end) {
  PlanSlice slice;
  for (uint32_t t = begin.tensor; t < plan.tensors.size() && t <= end.tensor; ++t) {
    TensorRange range = WholeTensor(plan, t);
    if (t == begin.tensor) range.begin = begin.block;
    if (t == end.tensor) range.end = end.block;
    if (range.begin < range.end) slice.ranges.push_back(range);
  }
  return slice;
}

}  // namespace

uint64_t RangeMergeBytes(const Plan& plan, const TensorRange& range) {
  const PlannedTensor& tensor = plan.tensors[range.tensor];
  const uint64_t block_size = plan.options.block_size;
  uint64_t bytes = 0;
  for (size_t k = 0; k < tensor.selected.size(); ++k) {
    const uint64_t size = DTypeSize(tensor.sources[k].dtype);
    tensor.selected[k]
        .Within(range.begin, range.end)
        .ForEachRun([&](BlockIndex begin, BlockIndex end) {
          bytes += BytesBetween(tensor, begin, end, block_size, size);
        });
  }
  return bytes * tensor.reads;
}

uint64_t RangeCompareBytes(const Plan& plan, const TensorRange& range) {
  const PlannedTensor& tensor = plan.tensors[range.tensor];
  if (!tensor.compare) return 0;
  const auto experts = static_cast<uint64_t>(
      std::count_if(tensor.sources.begin(), tensor.sources.end(),
                    [](const ExpertSource& source) { return source.present; }));
  return experts * BytesBetween(tensor, range.begin, range.end, plan.options.block_size,
                                DTypeSize(tensor.dtype));
}

uint64_t RangeCost(const Plan& plan, const TensorRange& range) {
  const PlannedTensor& tensor = plan.tensors[range.tensor];
  const uint64_t base_and_output =
      BytesBetween(tensor, range.begin, range.end, plan.options.block_size,
                   DTypeSize(tensor.dtype) + DTypeSize(tensor.out_dtype));
  return base_and_output + RangeMergeBytes(plan, range) + RangeCompareBytes(plan, range);
}

std::vector<PlanSlice> PartitionPlan(const Plan& plan, int ranks) {
  const Cutter cutter(plan, ranks);
  std::vector<PlanSlice> slices;
  Cut begin = cutter.Begin(0);
  for (int rank = 1; rank <= ranks; ++rank) {
    const Cut end = std::max(begin, cutter.Begin(static_cast<uint64_t>(rank)));
    slices.push_back(SliceBetween(plan, begin, end));
    begin = end;
  }
  return slices;
}

}  // namespace mergepipe
