#pragma once

#include "mergepipe/exec/report.h"
#include "mergepipe/exec/slice.h"

namespace mergepipe {

/// Lists each input of a tensor that has NaN or infinity, with the numbers; `inputs` are those of
/// the base, then of each expert. Whether there are any.
bool ListNonFinite(const std::string& tensor, const std::vector<NonFiniteCount>& inputs,
                   const std::vector<std::string>& expert_ids, ProblemList& problems);

/// Refuses NaN and infinity, unless the slice allows them: lists each input of `part` that has
/// some, with the numbers; if none has, what the merge itself made of finite values.
void CheckFinite(const Slice& slice, const TensorPart& part, const PartReport& report,
                 ProblemList& problems);

}  // namespace mergepipe
