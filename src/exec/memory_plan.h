#pragma once

#include "exec/work_units.h"
#include "mergepipe/exec/run_slice.h"

namespace mergepipe {

/// How a slice is worked on within a rank's memory: decided once, before anything is read.
struct MemoryPlan {
  WorkUnits work;
  int computing = 1;  ///< threads that may compute at a time
  int workers = 1;    ///< threads in all: the others read and write meanwhile
  /// For units that are read ahead, or held until they are made.
  uint64_t unit_bytes = 0;
  /// For what a worker reads for the moment: units of tensors that do not stay in memory.
  uint64_t passing_bytes = 0;
};

/// kNoSpace if the limits cannot hold a resident tensor and one block of every input.
Result<MemoryPlan> PlanMemory(const Slice& slice, const Strategy& strategy,
                              const ExecLimits& limits);

}  // namespace mergepipe
