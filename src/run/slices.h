#pragma once

#include <vector>

#include "mergepipe/exec/slice.h"
#include "mergepipe/format/output_layout.h"
#include "mergepipe/plan/partition.h"
#include "mergepipe/plan/statistics.h"
#include "run/earlier_work.h"
#include "run/inputs.h"
#include "run/sparse_output.h"

namespace mergepipe {

/// What a plan is executed with. References and pointers are the caller's.
struct SliceContext {
  const ResolvedInputs& inputs;  ///< without experts if there is a sparse output
  const OutputLayout& layout;    ///< of the output, in its form
  std::string staging;
  OutputForm form = OutputForm::kFull;
  bool gather_to_root = false;
  bool copies_known_blocks = false;      ///< as Slice's
  const SparseOutput* sparse = nullptr;  ///< take the touched blocks from it
  /// What need not be done again; may be null.
  const EarlierWork* earlier = nullptr;
  /// Where ranks that write keep their journals, each in the file "<attempt>.<rank>"; empty for
  /// none.
  std::string journal_directory = {};
  int attempt = 1;
  Hash128 identity = {};
  /// Knows the hashes of blocks that were analyzed; may be null. Asked for tensors in ascending
  /// order.
  StatisticsSource* statistics = nullptr;
};

/// What each of `ranks` ranks is told to do, serialised (SerializeSlice): the plan, partitioned,
/// with every path and offset resolved. Fails only where `statistics` does, and with kBadInput
/// where earlier work is not what they know, or has NaN or infinite values.
Result<std::vector<std::string>> MakeSlices(const Plan& plan, const SliceContext& context,
                                            int ranks);

/// The same for given ranges, a list for each rank. They need not cover the plan. A tensor that
/// is in the lists of several ranks must be there as PartitionPlan cuts it.
Result<std::vector<std::string>> MakeSlices(const Plan& plan, const SliceContext& context,
                                            const std::vector<PlanSlice>& ranges);

}  // namespace mergepipe
