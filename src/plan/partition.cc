#include "mergepipe/plan/partition.h"

#include <algorithm>
#include <numeric>

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

bool MakesAllBlocks(PlanWork work) { return work != PlanWork::kSparseMerge; }

// What an element of any block of the tensor costs.
uint64_t ElementCost(const PlannedTensor& tensor, PlanWork work) {
  const uint64_t base = DTypeSize(tensor.dtype);
  uint64_t cost = MakesAllBlocks(work) ? base + DTypeSize(tensor.out_dtype) : 0;
  if (!tensor.compare || work == PlanWork::kMaterialize) return cost;
  if (!MakesAllBlocks(work)) cost += base;
  for (const ExpertSource& source : tensor.sources) {
    if (source.present) cost += DTypeSize(source.dtype);
  }
  return cost;
}

// What an element of a touched block costs beyond that, the experts apart.
uint64_t TouchedElementCost(const PlannedTensor& tensor, PlanWork work) {
  switch (work) {
    case PlanWork::kMerge: return 0;
    case PlanWork::kSparseMerge: return DTypeSize(tensor.dtype) + DTypeSize(tensor.out_dtype);
    case PlanWork::kMaterialize: return DTypeSize(tensor.out_dtype);
  }
  return 0;
}

// RangeCost of each block of a tensor.
std::vector<uint64_t> BlockCosts(const Plan& plan, const PlannedTensor& tensor, PlanWork work,
                                 const BlockSet& done) {
  const uint64_t block_size = plan.options.block_size;
  std::vector<uint64_t> costs(tensor.Blocks(block_size), ElementCost(tensor, work));
  const auto add = [&](const BlockSet& blocks, uint64_t cost) {
    if (cost == 0) return;
    blocks.ForEachRun([&](BlockIndex begin, BlockIndex end) {
      for (uint64_t b = begin.value; b < end.value; ++b) costs[b] += cost;
    });
  };
  if (const uint64_t cost = TouchedElementCost(tensor, work); cost > 0)
    add(tensor.Touched(block_size), cost);
  if (work != PlanWork::kMaterialize) {
    for (size_t k = 0; k < tensor.selected.size(); ++k)
      add(tensor.selected[k], DTypeSize(tensor.sources[k].dtype) * tensor.reads);
  }
  for (uint64_t b = 0; b < costs.size(); ++b)
    costs[b] *= tensor.BlockElements(BlockIndex(b), block_size);
  done.ForEachRun([&](BlockIndex begin, BlockIndex end) {
    for (uint64_t b = begin.value; b < end.value; ++b) costs[b] = 0;
  });
  return costs;
}

// The boundary between blocks that is nearest to `cost`, measured from the tensor's start.
BlockIndex CutInside(const std::vector<uint64_t>& costs, uint64_t cost) {
  uint64_t sum = 0;
  for (uint64_t block = 0; block < costs.size(); ++block) {
    if (sum + costs[block] >= cost)
      return BlockIndex(cost - sum < costs[block] - (cost - sum) ? block : block + 1);
    sum += costs[block];
  }
  return BlockIndex(costs.size());
}

struct Cut {
  uint32_t tensor = 0;
  BlockIndex block;
  auto operator<=>(const Cut&) const = default;
};

// Finds where the slices begin; quick if it is asked in ascending order.
class Cutter {
 public:
  Cutter(const Plan& plan, int ranks, PlanWork work, const std::vector<BlockSet>& done)
      : plan_(plan), work_(work), done_(done), ranks_(static_cast<uint64_t>(ranks)) {
    tensor_begin_.push_back(0);
    for (uint32_t t = 0; t < plan.tensors.size(); ++t)
      tensor_begin_.push_back(tensor_begin_.back() + CostLeft(t));
  }

  Cut Begin(uint64_t rank) {
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
    const BlockIndex block = CutInside(CostsOf(tensor), target - tensor_begin_[tensor]);
    const bool at_end = block == WholeTensor(plan_, tensor).end;
    return at_end ? Cut{tensor + 1, BlockIndex(0)} : Cut{tensor, block};
  }

 private:
  const BlockSet& DoneOf(uint32_t tensor) const {
    static const BlockSet kNothing;
    return done_.empty() ? kNothing : done_[tensor];
  }

  uint64_t CostLeft(uint32_t tensor) const {
    const BlockSet& done = DoneOf(tensor);
    if (done.Empty()) return RangeCost(plan_, WholeTensor(plan_, tensor), work_);
    const auto costs = BlockCosts(plan_, plan_.tensors[tensor], work_, done);
    return std::accumulate(costs.begin(), costs.end(), uint64_t{0});
  }

  // Several ranks may begin in one tensor.
  const std::vector<uint64_t>& CostsOf(uint32_t tensor) {
    if (costs_.empty() || costs_of_ != tensor)
      costs_ = BlockCosts(plan_, plan_.tensors[tensor], work_, DoneOf(tensor));
    costs_of_ = tensor;
    return costs_;
  }

  const Plan& plan_;
  PlanWork work_;
  const std::vector<BlockSet>& done_;
  uint64_t ranks_;
  std::vector<uint64_t> tensor_begin_;  // cost before each tensor, and the total
  uint32_t costs_of_ = 0;
  std::vector<uint64_t> costs_;  // of the blocks of that tensor; empty at first
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

uint64_t RangeCost(const Plan& plan, const TensorRange& range, PlanWork work) {
  const PlannedTensor& tensor = plan.tensors[range.tensor];
  const uint64_t block_size = plan.options.block_size;
  uint64_t cost =
      BytesBetween(tensor, range.begin, range.end, block_size, ElementCost(tensor, work));
  if (const uint64_t touched = TouchedElementCost(tensor, work); touched > 0) {
    const BlockSet blocks = tensor.Touched(block_size).Within(range.begin, range.end);
    cost += tensor.ElementsOf(blocks, block_size) * touched;
  }
  return work == PlanWork::kMaterialize ? cost : cost + RangeMergeBytes(plan, range);
}

std::vector<PlanSlice> PartitionPlan(const Plan& plan, int ranks, PlanWork work,
                                     const std::vector<BlockSet>& done) {
  Cutter cutter(plan, ranks, work, done);
  std::vector<PlanSlice> slices;
  Cut begin = cutter.Begin(0);
  for (int rank = 1; rank <= ranks; ++rank) {
    const Cut end = std::max(begin, cutter.Begin(static_cast<uint64_t>(rank)));
    slices.push_back(SliceBetween(plan, begin, end));
    begin = end;
  }
  std::stable_partition(slices.begin(), slices.end(),
                        [](const PlanSlice& slice) { return !slice.ranges.empty(); });
  return slices;
}

std::vector<TensorRange> WithoutDone(const TensorRange& range, const BlockSet& done) {
  if (done.Empty()) return {range};
  std::vector<TensorRange> left;
  BlockIndex begin = range.begin;
  const auto add_until = [&](BlockIndex end) {
    if (begin < end) left.push_back({range.tensor, begin, end});
  };
  done.Within(range.begin, range.end).ForEachRun([&](BlockIndex run_begin, BlockIndex run_end) {
    add_until(run_begin);
    begin = run_end;
  });
  add_until(range.end);
  return left;
}

std::map<uint32_t, TensorSharing> FindSharing(const std::vector<PlanSlice>& slices) {
  std::map<uint32_t, TensorSharing> sharing;
  for (size_t rank = 0; rank < slices.size(); ++rank) {
    for (const TensorRange& range : slices[rank].ranges) {
      const auto [it, first] = sharing.try_emplace(range.tensor);
      if (first) it->second.first_rank = static_cast<int>(rank);
      it->second.last_rank = static_cast<int>(rank);
    }
  }
  uint32_t shared = 0;
  for (auto& [tensor, ranks] : sharing) {
    if (ranks.shared()) ranks.ordinal = shared++;
  }
  return sharing;
}

}  // namespace mergepipe
