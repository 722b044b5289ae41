#pragma once

#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// "TIES-Merging" (Yadav et al., NeurIPS 2023, section 4): trim, elect sign, disjoint mean.
extern const StrategyRow kTiesRow;
/// The weighted mean of the deltas.
extern const StrategyRow kAvgRow;
/// "Drop And REscale" (Yu et al., "Language Models are Super Mario", 2023, section 3.2), then as
/// avg.
extern const StrategyRow kDareRow;

}  // namespace mergepipe
