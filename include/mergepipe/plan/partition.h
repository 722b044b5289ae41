#pragma once

#include <map>
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

/// What is done with a plan's blocks, and so what a block costs: bytes read and bytes written.
enum class PlanWork {
  /// Every block is made: base, each selected expert as often as it is read, output. Integer
  /// tensors that are compared: all experts too.
  kMerge,
  /// The same of touched blocks only. Of tensors that are compared, base and experts.
  kSparseMerge,
  /// Every block is made from the base and the blocks that a sparse merge has made.
  kMaterialize,
};

/// Cuts the plan's blocks into `ranks` contiguous slices of near-equal cost, in order. Cuts fall on
/// block boundaries, and on a tensor's boundary where one is within 0.5 % of a share: a slice is
/// off the mean by at most 1 %, or by the largest block. Every block is in exactly one slice.
/// Slices without blocks come last: the ranks that share a tensor follow each other. Takes time in
/// proportion to the plan's pairs, for any number of ranks.
/// `done`, by tensor: blocks that need no work any more; empty, or an empty set, for none. They are
/// in the slices all the same, and cost nothing there.
std::vector<PlanSlice> PartitionPlan(const Plan& plan, int ranks, PlanWork work = PlanWork::kMerge,
                                     const std::vector<BlockSet>& done = {});

/// The parts of a range whose blocks are not in `done`, a set of its tensor's blocks; or an empty
/// set of any size.
std::vector<TensorRange> WithoutDone(const TensorRange& range, const BlockSet& done);

/// The cost of the blocks in a range, in bytes.
uint64_t RangeCost(const Plan& plan, const TensorRange& range, PlanWork work = PlanWork::kMerge);

/// Expert bytes that merging a range reads, and that comparing its integer tensors reads.
uint64_t RangeMergeBytes(const Plan& plan, const TensorRange& range);
uint64_t RangeCompareBytes(const Plan& plan, const TensorRange& range);

/// Which ranks hold blocks of a tensor.
struct TensorSharing {
  int first_rank = 0;
  int last_rank = 0;
  /// Numbers the tensors that several ranks share, in file order. As slices are contiguous, a rank
  /// shares at most two tensors, and these have consecutive numbers: at most one is even, and one
  /// odd.
  uint32_t ordinal = 0;

  bool shared() const { return first_rank != last_rank; }
};

/// Of each tensor that is in a slice.
std::map<uint32_t, TensorSharing> FindSharing(const std::vector<PlanSlice>& slices);

}  // namespace mergepipe
