#pragma once

#include <span>
#include <string>
#include <vector>

#include "mergepipe/exec/journal.h"
#include "mergepipe/exec/slice.h"
#include "mergepipe/plan/partition.h"
#include "mergepipe/plan/plan.h"

namespace mergepipe {

/// What earlier attempts at an output have finished, as far as another attempt can go on from it.
struct EarlierWork {
  /// By tensor; empty if there is nothing. Of a tensor that is complete, also the blocks that a
  /// sparse output does not hold.
  std::vector<BlockSet> done;
  std::vector<std::string> conclusions;  ///< by tensor: TensorPart::conclusion
  std::vector<PartReport> reports;       ///< of the blocks that are done, by tensor and block
  MovedBytes moved;
  uint64_t lost_bytes = 0;  ///< expert bytes that were read for nothing that is done

  bool any() const { return !done.empty(); }
  /// Those that begin in the range.
  std::span<const PartReport> ReportsIn(const TensorRange& range) const;
};

/// Takes from the journals what fits the plan. A unit that does not, or that overlaps what is done
/// already, counts as lost. `observes`: whether the strategy observes tensors before it makes them;
/// then the blocks of one whose rounds were not over count only if all of them are done.
/// `experts`: how many a report speaks of; none where a sparse output is completed.
EarlierWork SettleEarlierWork(const Plan& plan, OutputForm form, JournalContents contents,
                              bool observes, size_t experts);

}  // namespace mergepipe
