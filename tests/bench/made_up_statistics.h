#pragma once

#include <cstdint>
#include <vector>

#include "plan/family.h"

namespace mergepipe::test {

/// Exact statistics of a family's experts and base that are made when asked for, the same each
/// time: norms over two orders of magnitude, unrelated directions, one block in 64 equal to the
/// base's.
class MadeUpStatistics final : public StatisticsSource {
 public:
  /// `family` must outlive this.
  explicit MadeUpStatistics(const Family& family) : family_(family) {}

  StatisticsKind KindOf(uint32_t /*expert*/) const override { return StatisticsKind::kExact; }
  Result<std::vector<BlockStatistics>> OfExpert(uint32_t expert, uint32_t tensor) override;
  Result<std::vector<BaseBlockStatistics>> OfBase(uint32_t tensor) override;

 private:
  uint64_t Blocks(uint32_t tensor) const;
  void Reset(uint64_t model, uint64_t tensor) { state_ = (model << 32) + (tensor << 16); }
  uint64_t Next();
  double Unit();  ///< in [0, 1)
  void Make(BlockStatistics& block);

  const Family& family_;
  uint64_t state_ = 0;
};

}  // namespace mergepipe::test
