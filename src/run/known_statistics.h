#pragma once

#include <memory>
#include <vector>

#include "mergepipe/catalog/catalog.h"
#include "mergepipe/plan/planner.h"
#include "run/inputs.h"

namespace mergepipe {

/// Whether an expert's version of the base's tensor can have statistics.
bool HasDelta(const PlannedTensor& tensor, size_t expert);

/// What the catalog knows of the inputs' deltas.
class KnownStatistics final : public StatisticsSource {
 public:
  /// `catalog` may be null: then nothing is known. `matched` tells which tensors matter. Finds the
  /// experts whose exact statistics are complete. A model that is not in the catalog as it is on
  /// disk has none.
  static Result<std::shared_ptr<KnownStatistics>> Find(std::shared_ptr<Catalog> catalog,
                                                       const ResolvedInputs& inputs,
                                                       const Plan& matched);

  StatisticsKind KindOf(uint32_t expert) const override { return experts_[expert].kind; }
  Result<std::vector<BlockStatistics>> OfExpert(uint32_t expert, uint32_t tensor) override;
  Result<std::vector<BaseBlockStatistics>> OfBase(uint32_t tensor) override;

  /// The experts without exact statistics.
  std::vector<uint32_t> Unknown() const;
  /// From here on these experts are known by a probe of this stride, or exactly (0): the catalog
  /// has it by the time that something is asked.
  void Expect(const std::vector<uint32_t>& experts, uint64_t stride);

 private:
  struct Expert {
    StatisticsKind kind = StatisticsKind::kNone;
    StatisticsId id;
  };

  KnownStatistics(std::shared_ptr<Catalog> catalog, const ResolvedInputs& inputs,
                  const Plan& matched);
  Result<bool> IsExact(uint32_t expert) const;

  std::shared_ptr<Catalog> catalog_;
  bool base_holds_;
  std::vector<std::vector<uint32_t>> tensors_;  ///< for each expert, those that have a delta
  std::vector<Expert> experts_;
  ProbeNumbering numbering_;
};

}  // namespace mergepipe
