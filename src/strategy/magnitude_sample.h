#pragma once

#include <vector>

#include "mergepipe/kernels/magnitude.h"
#include "mergepipe/strategy/block_deltas.h"

namespace mergepipe {

/// Which elements of a range a sample consists of: about `wanted` in short runs, one run at a
/// pseudo-random place of each of equal cells (so that no row length resonates), or all if there
/// are not many more. It depends on element indices alone.
class SamplePlan {
 public:
  SamplePlan(uint64_t elements, uint64_t wanted);

  /// Whether every element belongs to the sample.
  bool complete() const { return stride_ == 0; }
  /// Appends the magnitudes of those of the slot's elements that belong to the sample. The range
  /// begins at element `origin` of the tensor.
  void Take(const BlockDeltas& block, size_t slot, uint64_t origin,
            std::vector<uint32_t>& sample) const;

 private:
  uint64_t stride_ = 0;
};

/// The `rank`-th largest (from 1, at most their number) of some magnitudes, which are overwritten.
uint32_t LargestMagnitude(std::span<uint32_t> magnitudes, uint64_t rank);

/// Where the `rank`-th largest of `seen` magnitudes lies but in rare cases, by a sample of them:
/// six standard deviations of the sample's ranks to either side.
MagnitudeBracket GuessBracket(std::span<const uint32_t> sample, uint64_t seen, uint64_t rank);

/// The `rank`-th largest (from 1) magnitude of a whole block's deltas, 0 if there are fewer: by
/// sample, bracket and one pass.
uint32_t BlockMagnitude(const BlockDeltas& block, size_t slot, uint64_t rank);

}  // namespace mergepipe
