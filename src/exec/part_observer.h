#pragma once

#include "exec/memory_plan.h"
#include "exec/part_inputs.h"
#include "exec/pass.h"

namespace mergepipe {

/// Shows a part's touched blocks to its strategy, in rounds, together with the other ranks that
/// make parts of the same tensor.
class PartObserver {
 public:
  PartObserver(Communicator& communicator, const Slice& slice, const Strategy& strategy,
               const MemoryPlan& memory, PartInputs& inputs, int threads)
      : communicator_(communicator),
        slice_(slice),
        strategy_(strategy),
        memory_(memory),
        inputs_(inputs),
        threads_(threads) {}

  /// All rounds; then the tensor is ready to be merged.
  Result<PartOutcome> Observe(const TensorPart& part, TensorMerge& tensor);
  /// Takes part in the exchange of a part's statistics, if there is one, with nothing: then the
  /// others leave it too.
  void Refuse(const TensorPart& part);

 private:
  Result<PartOutcome> ObserveRound(const TensorPart& part, const TensorMerge& tensor, int round,
                                   TensorStatistics& statistics);
  Status ObserveChunk(const TensorPart& part, const TensorMerge& tensor, int round,
                      const Chunk& chunk, TensorStatistics& sum);

  Communicator& communicator_;
  const Slice& slice_;
  const Strategy& strategy_;
  const MemoryPlan& memory_;
  PartInputs& inputs_;
  int threads_;
};

}  // namespace mergepipe
