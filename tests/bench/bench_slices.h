#pragma once

#include "mergepipe/format/sparse.h"
#include "plan/family.h"

namespace mergepipe::test {

/// Spreads a model's tensors, in order, over `count` files of near-equal size, as large models are
/// stored.
void SplitIntoFiles(ModelRecord& model, size_t count);

struct MadeSlices {
  double seconds = 0;  ///< the partition included
  uint64_t bytes = 0;  ///< what rank 0 holds for all ranks
  uint64_t largest = 0;
};

/// Makes what each of `ranks` ranks is told to do, from the plan to the bytes that are sent.
Result<MadeSlices> MakeSlicesOf(const Plan& plan, const Family& family, OutputForm form, int ranks,
                                StatisticsSource& statistics);

}  // namespace mergepipe::test
