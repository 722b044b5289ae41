#pragma once

#include <vector>

#include "mergepipe/base/hash.h"
#include "mergepipe/plan/planner.h"
#include "plan/scoring.h"

namespace mergepipe {

/// Reads what is known of the deltas, a tensor at a time, in order.
class DeltaReader {
 public:
  DeltaReader(const PlanInput& input, const Plan& plan);

  /// Loads what is known of a kMerge tensor.
  Status Load(uint32_t tensor);

  /// Of block `block` of the tensor that was loaded, for each expert.
  std::span<const KnownDelta> Block(uint64_t block);
  /// Whether expert k's block is known to hold the base's values.
  bool Equal(size_t expert, uint64_t block) const;

  /// Over everything loaded so far, one for each expert.
  std::vector<PlannedStatistics> Used() const;

 private:
  /// An expert's probe, carried on to the blocks that follow the probed one.
  struct Carried {
    BlockStatistics statistics;
    uint64_t sampled = 0;  ///< elements; 0: nothing was probed yet
  };

  KnownDelta Exact(size_t expert, uint64_t block) const;
  KnownDelta Probed(size_t expert, uint64_t block);

  const PlanInput& input_;
  const Plan& plan_;
  ProbeNumbering numbering_;
  std::vector<Hasher> hashers_;
  std::vector<std::vector<BlockStatistics>> loaded_;  ///< for each expert
  std::vector<Carried> carried_;
  std::vector<uint64_t> next_probe_;  ///< for each expert, into loaded_
  std::vector<KnownDelta> block_;
  uint32_t tensor_ = 0;
};

}  // namespace mergepipe
