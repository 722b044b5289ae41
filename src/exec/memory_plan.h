#pragma once

#include "mergepipe/exec/run_slice.h"

namespace mergepipe {

/// How much of a slice's work a rank may hold at a time: decided once, before anything is read.
class MemoryPlan {
 public:
  MemoryPlan(const Slice& slice, const Strategy& strategy, const ExecLimits& limits);

  /// kNoSpace if the limits cannot hold a resident tensor and one block of every input.
  Status Check() const;

  /// Whether the strategy must see the part before it is merged, and whether its expert bytes stay
  /// in memory meanwhile.
  bool Observes(const TensorPart& part) const;
  bool Holds(const TensorPart& part) const { return Observes(part) && part.reads == 1; }
  /// Blocks of a chunk.
  uint64_t ChunkBlocks(const TensorPart& part) const;
  /// Threads that observe, each with statistics of its own.
  uint64_t groups() const { return groups_; }

 private:
  uint64_t HeldBytes() const;
  uint64_t HashMemory() const;
  uint64_t FixedMemory() const;
  uint64_t StatisticsOf(uint64_t groups) const;
  uint64_t BlockMemory(const TensorPart& part) const;

  const Slice& slice_;
  int rounds_;
  ExecLimits limits_;
  uint64_t fixed_memory_;
  uint64_t groups_;
};

}  // namespace mergepipe
