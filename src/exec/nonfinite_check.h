#pragma once

#include "mergepipe/exec/report.h"
#include "mergepipe/exec/slice.h"

namespace mergepipe {

/// Refuses NaN and infinity, unless the slice allows them: lists each input of `part` that has
/// some, with the numbers; if none has, what the merge itself made of finite values.
void CheckFinite(const Slice& slice, const TensorPart& part, const PartReport& report,
                 ProblemList& problems);

}  // namespace mergepipe
