#pragma once

#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// A merge whose blocks are independent of each other: no rounds. Its statistics are empty,
/// observing does nothing, and ending a round is a defect.
class BlockLocalMerge : public TensorMerge {
 public:
  bool WantsRound() const final { return false; }
  std::unique_ptr<TensorStatistics> NewStatistics() const final;
  Result<std::unique_ptr<TensorStatistics>> ParseStatistics(std::string_view bytes) const final;
  void Observe(const BlockDeltas& block, TensorStatistics& statistics) const final;
  Status Finish(const TensorStatistics& statistics) final;
  std::string Conclusion() const final { return {}; }
  Status Conclude(std::string_view conclusion) final;
};

}  // namespace mergepipe
