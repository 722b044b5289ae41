#pragma once

#include <memory>

#include "mergepipe/catalog/catalog.h"
#include "run/inputs.h"
#include "run/scan_steps.h"

namespace mergepipe {

/// Which statistics are to be in the catalog.
struct StatisticsWish {
  std::vector<uint32_t> experts;
  uint64_t stride = 0;  ///< 0: exact; n: by a probe of every n-th block
  bool again = false;   ///< also what the catalog has already
};

/// The steps of an analysis or a probe: what the catalog lacks, by tensors. Each step is committed
/// before the next is read, so that a kill loses one step at most, and rank 0 holds no more than
/// that. A step reads about a GiB a rank, or one tensor if that is more.
class StatisticsSteps final : public ScanSteps {
 public:
  /// The inputs must be in the catalog as they are.
  static Result<std::unique_ptr<StatisticsSteps>> Start(FileSystem& files,
                                                        std::shared_ptr<Catalog> catalog,
                                                        const ResolvedInputs& inputs,
                                                        const Plan& matched,
                                                        const ScanPartitioner& partitioner,
                                                        const StatisticsWish& wish, int ranks);

  uint64_t TotalBytes() const override { return partitioner_.Cost(wanted_); }
  std::vector<WantedTensor> Next() override;
  /// kBadInput if an input changed since it was resolved: then its statistics are worth nothing.
  Status Store(std::vector<ScannedTensor> tensors) override;

  /// Whether something of the expert is wanted.
  bool Wants(size_t expert) const;

 private:
  StatisticsSteps(FileSystem& files, std::shared_ptr<Catalog> catalog, const ResolvedInputs& inputs,
                  const Plan& matched, const ScanPartitioner& partitioner, StatisticsWish wish,
                  int ranks);
  StatisticsId IdOf(size_t expert) const;
  Status Forget();
  Status FindWanted();
  WantedTensor Want(uint32_t tensor, const std::vector<std::vector<uint32_t>>& of_experts,
                    const std::vector<uint32_t>& of_base) const;
  Status DropOthersIfBaseChanged(const std::vector<BaseTensorBlockStatistics>& base);

  FileSystem& files_;
  std::shared_ptr<Catalog> catalog_;
  const ResolvedInputs& inputs_;
  const Plan& matched_;
  const ScanPartitioner& partitioner_;
  StatisticsWish wish_;
  ProbeNumbering numbering_;
  uint64_t step_bytes_;
  std::vector<WantedTensor> wanted_;
  size_t next_ = 0;
};

}  // namespace mergepipe
