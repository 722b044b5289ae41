#pragma once

#include "exec/block_maker.h"
#include "exec/memory_plan.h"
#include "exec/output_files.h"
#include "exec/part_observer.h"

namespace mergepipe {

/// Makes the parts of one slice, one after the other, in chunks of some blocks.
class PartMerger {
 public:
  PartMerger(FileSystem& files, Communicator& communicator, const Slice& slice,
             const Strategy& strategy, const ExecLimits& limits, SourceFiles& sources,
             OutputFiles& outputs);

  /// kNoSpace if the limits cannot hold a resident tensor and one block of every input.
  Status CheckMemory() const { return memory_.Check(); }

  /// Merges one part. For a shared part, the ranks of its group call this at the same time; one of
  /// them that cannot go on calls Refuse instead.
  Result<PartOutcome> Merge(const TensorPart& part, PartReport& report);
  void Refuse(const TensorPart& part) { observer_.Refuse(part); }

  uint64_t bytes_written() const { return bytes_written_; }
  uint64_t bytes_copied() const { return bytes_copied_; }

 private:
  Status Open(const TensorPart& part);
  /// Whether blocks are only looked at, not made: in a sparse output those of a compared tensor.
  bool OnlyCompares(const TensorPart& part) const;
  Result<PartOutcome> MakeBlocks(const TensorPart& part, const TensorMerge* tensor,
                                 PartReport& report);
  Status MakeChunk(const TensorPart& part, BlockMaker& maker, const Chunk& chunk,
                   PartReport& report);
  Status WriteChunk(const TensorPart& part, const BlockMaker& maker, const Chunk& chunk);

  Communicator& communicator_;
  const Slice& slice_;
  const Strategy& strategy_;
  int threads_;
  OutputFiles& outputs_;
  MemoryPlan memory_;
  PartInputs inputs_;
  PartObserver observer_;
  ChunkBuffer out_;  ///< touched blocks, or all where the dtype changes
  uint64_t bytes_written_ = 0;
  uint64_t bytes_copied_ = 0;
};

}  // namespace mergepipe
