#pragma once

#include <mutex>
#include <span>
#include <vector>

#include "exec/unit_data.h"
#include "mergepipe/exec/report.h"
#include "mergepipe/io/aligned_buffer.h"

namespace mergepipe {

/// Bytes to be written at an offset of an output file.
struct OutputRun {
  uint32_t file = 0;
  uint64_t offset = 0;
  std::span<const std::byte> bytes;
};

/// Bytes of a base file that an output file takes over.
struct CopyRun {
  uint32_t file = 0;
  uint64_t offset = 0;
  uint32_t base_file = 0;
  uint64_t base_offset = 0;
  uint64_t length = 0;
};

/// What was met in the blocks of a piece: the counts of a PartReport.
struct PieceCounts {
  std::vector<NonFiniteCount> inputs;
  NonFiniteCount made;
  std::vector<uint8_t> differs;
};

/// What becomes of a unit. The bytes lie in the buffer it was made in.
struct MadeUnit {
  std::vector<OutputRun> writes;
  std::vector<CopyRun> copies;
  uint64_t unchanged_bytes = 0;  ///< of the writes, bytes that are the base's
  std::vector<PieceCounts> counts;
};

/// Makes the blocks of units and reports them: hashes, counts, comparisons. Thread-safe for
/// different units.
class UnitMaker {
 public:
  /// `reports` has one report for each part, started by StartReport.
  UnitMaker(const Slice& slice, std::vector<PartReport>& reports)
      : slice_(slice), reports_(reports) {}

  static void StartReport(const Slice& slice, const TensorPart& part, PartReport& report);
  /// Until here the hashes of what was read have a place for every block of the part.
  static void FinishReport(const TensorPart& part, PartReport& report);

  /// `tensors` has, for each piece, what merges its touched blocks; null if none are. `out` grows
  /// as needed.
  MadeUnit Make(const WorkUnit& unit, const UnitData& data,
                std::span<const TensorMerge* const> tensors, AlignedBuffer& out);

  /// Adds what became of the blocks of a piece that was made, a report for each run of neighbours,
  /// before FinishReport. The counts go into the first; there is none for blocks that are only
  /// compared.
  void ReportPiece(const UnitPiece& piece, const PieceCounts& counts,
                   std::vector<PartReport>& runs) const;

  /// Room for the output of a unit, at most.
  static uint64_t OutMemory(const UnitBytes& bytes);

 private:
  using Counts = PieceCounts;

  PieceCounts MakePiece(const UnitPiece& piece, const UnitData& data, const TensorMerge* tensor,
                        std::span<std::byte* const> places);
  void MakeBlock(const UnitPiece& piece, size_t i, const UnitData& data, const TensorMerge* tensor,
                 std::span<std::byte> out, Counts& counts);
  NonFiniteCount Merge(const UnitPiece& piece, size_t i, const UnitData& data,
                       const TensorMerge& tensor, std::span<std::byte> out, Counts& counts);
  void Compare(const UnitPiece& piece, size_t i, const UnitData& data, Counts& counts) const;
  void Add(const Counts& counts, PartReport& report);

  const Slice& slice_;
  std::vector<PartReport>& reports_;
  std::mutex mutex_;  // of the counts in the reports
};

}  // namespace mergepipe
