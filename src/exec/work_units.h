#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "mergepipe/exec/slice.h"
#include "mergepipe/strategy/strategy.h"

/// \file
/// How a slice is cut into what is read, made and written at a time.
namespace mergepipe {

/// Blocks of one part within a unit, ascending.
struct UnitPiece {
  size_t part = 0;  ///< in Slice::parts
  std::vector<uint64_t> blocks;
  /// Where the block lies among those of the part that are written: its place in the report.
  std::vector<uint64_t> positions;
  size_t first_block = 0;  ///< among the blocks of all pieces of the unit
};

/// What is read together, made by one thread and written together: either some whole small parts,
/// or some blocks of one part.
struct WorkUnit {
  std::vector<UnitPiece> pieces;
  /// In WorkUnits::jobs: the unit can be made once all units of the job have been observed.
  std::optional<size_t> job;

  size_t blocks() const { return pieces.empty() ? 0 : EndOf(pieces.back()); }
  static size_t EndOf(const UnitPiece& piece) { return piece.first_block + piece.blocks.size(); }
};

/// A part that is observed before it is made and does not fit one unit, or is shared with other
/// ranks. Its units hold its touched blocks only; none if there are none.
struct ObserveJob {
  size_t part = 0;
  size_t begin = 0;  ///< its units
  size_t end = 0;
  /// Whether the experts' bytes stay in memory from the first look to the making; and the base's.
  bool holds_experts = false;
  bool holds_base = false;
};

/// In the order in which it is read: first what other ranks wait for (shared jobs of even ordinal,
/// then of odd), then the rest in file order.
struct WorkUnits {
  std::vector<WorkUnit> units;
  std::vector<ObserveJob> jobs;
};

/// Whether the strategy must see the part before it is made.
bool NeedsObserving(const TensorPart& part, const Strategy& strategy);

/// Whether a block's bytes go from the base file to the output without passing through memory: they
/// are the base's, and their hash is known.
bool IsCopied(const Slice& slice, const TensorPart& part, uint64_t block);

/// Whether blocks of the part are only looked at, not made: in a sparse output those of a compared
/// tensor.
bool OnlyCompares(const Slice& slice, const TensorPart& part);

/// Units of about `target_bytes` of the base, or of one block where that is larger.
WorkUnits CutIntoUnits(const Slice& slice, const Strategy& strategy, uint64_t target_bytes);

/// Bytes of a unit, and in how many runs of neighbours they come at most.
struct UnitBytes {
  uint64_t base = 0;
  uint64_t experts = 0;   ///< or what a sparse output has made of it
  uint64_t merged = 0;    ///< of these, expert bytes to merge
  uint64_t compared = 0;  ///< and expert bytes to compare
  uint64_t out = 0;
  uint64_t copied = 0;  ///< from file to file: never in memory
  uint64_t base_runs = 0;
  uint64_t expert_runs = 0;
  uint64_t out_runs = 0;
};
UnitBytes BytesOf(const Slice& slice, const WorkUnit& unit);

}  // namespace mergepipe
