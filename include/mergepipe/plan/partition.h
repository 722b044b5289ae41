#pragma once

#include <vector>

#include "mergepipe/plan/plan.h"

namespace mergepipe {

/// Consecutive blocks of one output tensor.
struct TensorRange {
  uint32_t tensor = 0;  ///< index into Plan::tensors
  BlockIndex begin;
  BlockIndex end;
  bool operator==(const TensorRange&) const = default;
};

/// What one rank merges: a contiguous piece of the output's byte space.
struct PlanSlice {
  std::vector<TensorRange> ranges;
  bool operator==(const PlanSlice&) const = default;
};

/// Cuts the plan's blocks into `ranks` contiguous slices of near-equal cost, in order. The cost of
/// a block is the bytes read (base, and each selected expert as often as it is read) plus the bytes
/// written. Cuts fall on block boundaries, and on a tensor's boundary where one is within 0.5 % of
/// a share. Every block is in exactly one slice; a slice may be empty.
std::vector<PlanSlice> PartitionPlan(const Plan& plan, int ranks);

/// The cost of the blocks in a range, in bytes.
uint64_t RangeCost(const Plan& plan, const TensorRange& range);

/// Expert bytes that merging a range reads, and that comparing its integer tensors reads.
uint64_t RangeMergeBytes(const Plan& plan, const TensorRange& range);
uint64_t RangeCompareBytes(const Plan& plan, const TensorRange& range);

}  // namespace mergepipe
