#pragma once

#include <vector>

#include "mergepipe/comm/communicator.h"
#include "mergepipe/exec/scan.h"
#include "mergepipe/run/merge.h"
#include "run/inputs.h"
#include "run/source_tables.h"

namespace mergepipe {

/// Statistics that are wanted of one tensor.
struct WantedTensor {
  uint32_t tensor = 0;
  std::vector<bool> experts;  ///< of which experts, of those that have it
  bool base = false;
  BlockSet blocks;
};

/// Turns what is wanted into what each rank reads: near-equal bytes each, cut at blocks, in file
/// order.
class ScanPartitioner {
 public:
  /// `matched` tells which tensor of an expert stands for which of the base.
  ScanPartitioner(const ResolvedInputs& inputs, const Plan& matched, bool probe,
                  bool allow_nonfinite);

  std::vector<ScanSlice> Cut(const std::vector<WantedTensor>& wanted, int ranks) const;
  /// Bytes of base and experts that `wanted` reads.
  uint64_t Cost(const WantedTensor& wanted) const;
  uint64_t Cost(const std::vector<WantedTensor>& wanted) const;

 private:
  ScanPart PartOf(const WantedTensor& wanted) const;
  uint64_t BlockCost(const ScanPart& part, uint64_t block) const;

  const ResolvedInputs& inputs_;
  const Plan& matched_;
  ScanSlice common_;  // without parts and their files
  std::vector<SourceFile> base_files_;
  std::vector<std::vector<SourceFile>> expert_files_;
  std::vector<TensorsByName> expert_tensors_;
};

/// The statistics of one tensor from all ranks, in block order.
struct ScannedTensor {
  uint32_t tensor = 0;
  std::vector<BaseBlockStatistics> base;
  std::vector<std::vector<BlockStatistics>> experts;
};

/// What rank 0 does between the steps of a scan.
class ScanSteps {
 public:
  virtual ~ScanSteps() = default;
  /// What all steps read together.
  virtual uint64_t TotalBytes() const = 0;
  /// Tensors of the next step, ascending; none when all is done.
  virtual std::vector<WantedTensor> Next() = 0;
  /// Takes what the step gave.
  virtual Status Store(std::vector<ScannedTensor> tensors) = 0;
};

/// Takes statistics on all ranks, step by step. Collective; `steps` and `partitioner` are rank 0's
/// and null elsewhere. Adds what each rank read to `read` (on rank 0).
Status ScanOnAll(FileSystem& files, Communicator& communicator, ExecLimits limits, ScanSteps* steps,
                 const ScanPartitioner* partitioner, std::vector<PlanningIo>& read);

}  // namespace mergepipe
