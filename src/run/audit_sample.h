#pragma once

#include <vector>

#include "mergepipe/format/sparse.h"
#include "mergepipe/plan/partition.h"

namespace mergepipe {

/// Blocks of an output that are to be made again: `count` of them (all, if there are no more) drawn
/// by `seed`, in file order. Of a sparse output only touched blocks; where `whole_tensors`, every
/// block of a tensor that is merged and of which one is drawn. The same on every machine.
std::vector<TensorRange> ChooseSample(const Plan& plan, OutputForm form, bool whole_tensors,
                                      uint64_t count, uint64_t seed);

/// The ranges dealt to ranks, those of one tensor to one rank.
std::vector<PlanSlice> DealRanges(const std::vector<TensorRange>& ranges, int ranks);

}  // namespace mergepipe
