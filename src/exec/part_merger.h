#pragma once

#include <functional>

#include "exec/block_deltas.h"
#include "exec/expert_window.h"
#include "exec/output_files.h"
#include "mergepipe/comm/communicator.h"
#include "mergepipe/exec/report.h"
#include "mergepipe/exec/run_slice.h"

namespace mergepipe {

/// How a part ended.
enum class PartOutcome {
  kDone,
  kStopped,  ///< another rank has failed: its error comes out at the next Agree
};

/// Makes the parts of one slice, one after the other, in chunks of some blocks.
class PartMerger {
 public:
  PartMerger(Communicator& communicator, const Slice& slice, const Strategy& strategy,
             const ExecLimits& limits, SourceFiles& sources, OutputFiles& outputs);

  /// kNoSpace if the limits cannot hold a resident tensor and one block of every input.
  Status CheckMemory() const;

  /// Merges one part. For a shared part, the ranks of its group call this at the same time; one of
  /// them that cannot go on calls Refuse instead.
  Result<PartOutcome> Merge(const TensorPart& part, PartReport& report);
  /// Takes part in the exchange of a part's statistics, if there is one, with nothing: then the
  /// others leave it too.
  void Refuse(const TensorPart& part);

  uint64_t bytes_written() const { return bytes_written_; }
  uint64_t bytes_copied() const { return bytes_copied_; }

 private:
  using Outcome = Result<PartOutcome>;

  BlockGeometry GeometryOf(const TensorPart& part) const {
    return {slice_.block_size, part.elements};
  }
  /// Whether the strategy must see the part before it is merged, and whether its expert bytes stay
  /// in memory meanwhile.
  bool Observes(const TensorPart& part) const;
  bool Holds(const TensorPart& part) const { return Observes(part) && part.reads == 1; }

  uint64_t HeldBytes() const;
  uint64_t ReportMemory() const;
  uint64_t FixedMemory() const;
  uint64_t StatisticsOf(uint64_t groups) const;
  uint64_t BlockMemory(const TensorPart& part) const;
  uint64_t ChunkBlocks(const TensorPart& part) const;

  Outcome ForEachChunk(const TensorPart& part,
                       const std::function<Status(uint64_t, uint64_t)>& visit);
  Status LoadBase(const TensorPart& part, uint64_t begin, uint64_t end);
  Status LoadExperts(const TensorPart& part, uint64_t begin, uint64_t end);
  std::span<std::byte> BlockOf(AlignedBuffer& buffer, const TensorPart& part, DType dtype,
                               uint64_t chunk_begin, uint64_t block);
  StoredBlockDeltas DeltasOf(const TensorPart& part, uint64_t chunk_begin, uint64_t block);

  Status Open(const TensorPart& part);
  Outcome ObserveRound(const TensorPart& part, const TensorMerge& tensor, int round,
                       TensorStatistics& statistics);
  Outcome ObserveRounds(const TensorPart& part, TensorMerge& tensor);
  Status ObserveChunk(const TensorPart& part, const TensorMerge& tensor, int round, uint64_t begin,
                      uint64_t end, TensorStatistics& sum);
  Outcome MakeBlocks(const TensorPart& part, const TensorMerge* tensor, PartReport& report);
  Status MakeBlock(const TensorPart& part, const TensorMerge* tensor, uint64_t chunk_begin,
                   uint64_t block, PartReport& report, std::vector<NonFiniteCount>& counts);
  Status CompareChunk(const TensorPart& part, uint64_t begin, uint64_t end, PartReport& report);
  Status WriteChunk(const TensorPart& part, uint64_t begin, uint64_t end);

  Communicator& communicator_;
  const Slice& slice_;
  const Strategy& strategy_;
  ExecLimits limits_;
  SourceFiles& sources_;
  OutputFiles& outputs_;
  ExpertWindow window_;
  AlignedBuffer base_;
  AlignedBuffer out_;  ///< touched blocks, or all where the dtype changes
  AlignedBuffer compared_;
  uint64_t fixed_memory_;
  uint64_t groups_ = 1;  ///< threads that observe, each with statistics of its own
  uint64_t bytes_written_ = 0;
  uint64_t bytes_copied_ = 0;
};

}  // namespace mergepipe
