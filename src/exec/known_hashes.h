#pragma once

#include "mergepipe/exec/report.h"
#include "mergepipe/exec/slice.h"

namespace mergepipe {

/// Compares what was read for a part with the hashes that were known before: kBadInput naming the
/// first block that is another one.
Status CheckKnownHashes(const Slice& slice, const TensorPart& part, const PartReport& report);

}  // namespace mergepipe
