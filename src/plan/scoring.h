#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "mergepipe/plan/planner.h"

namespace mergepipe {

/// What is known of one block's delta of one expert. A probe's numbers are scaled to the block.
struct KnownDelta {
  StatisticsKind kind = StatisticsKind::kNone;  ///< kNone: no statistics, or no such tensor
  double sum_squares = 0;
  double max_abs = 0;
  uint64_t elements = 0;
  const std::array<int8_t, kSketchSize>* sketch = nullptr;
};

/// Scores of one block, one for each expert, from what is known of all of them. `place` says which
/// block it is.
struct BlockPlace {
  const Hash128& tensor_name;
  uint64_t block;
};
using BlockScoring = void (*)(const BlockPlace& place, std::span<const double> weights,
                              std::span<const KnownDelta> deltas, std::span<double> scores);

struct ScoringRow {
  std::string_view name;
  bool needs_statistics;
  BlockScoring score;
};
/// kUsage if there is no scoring of that name.
Result<const ScoringRow*> FindScoring(std::string_view name);

}  // namespace mergepipe
