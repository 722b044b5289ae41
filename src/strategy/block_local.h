#pragma once

#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// A merge whose blocks are independent of each other: no rounds. Its statistics are empty,
/// observing does nothing, and ending a round is a defect.
class BlockLocalMerge : public TensorMerge {
 public:
  std::unique_ptr<TensorStatistics> NewStatistics(int round) const final;
  Result<std::unique_ptr<TensorStatistics>> ParseStatistics(int round,
                                                            std::string_view bytes) const final;
  void Observe(int round, const BlockDeltas& block, TensorStatistics& statistics) const final;
  Status Finish(int round, const TensorStatistics& statistics) final;
};

}  // namespace mergepipe
