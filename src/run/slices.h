#pragma once

#include <vector>

#include "mergepipe/exec/slice.h"
#include "mergepipe/format/output_layout.h"
#include "mergepipe/plan/partition.h"
#include "run/inputs.h"

namespace mergepipe {

/// What each of `ranks` ranks is told to do, serialised (SerializeSlice): the plan, partitioned,
/// with every path and offset resolved.
std::vector<std::string> MakeSlices(const Plan& plan, const ResolvedInputs& inputs,
                                    const OutputLayout& layout, const std::string& staging,
                                    int ranks);

}  // namespace mergepipe
