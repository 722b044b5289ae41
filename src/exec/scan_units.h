#pragma once

#include <cstdint>
#include <vector>

#include "mergepipe/exec/scan.h"

namespace mergepipe {

/// Elements that are read of a block, `first` counted from the tensor's.
struct ScanPiece {
  uint64_t first = 0;
  uint64_t count = 0;
};
ScanPiece PieceOf(const ScanSlice& slice, const ScanPart& part, uint64_t block);

/// Whether anything of the part is wanted of any model.
bool IsRead(const ScanPart& part);

/// What one worker reads and takes statistics of at a time: wanted blocks of a part, by their
/// places [begin, end) among all of them.
struct ScanUnit {
  size_t part = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
};

/// A slice cut into units, so that all workers' buffers stay within the limits.
struct ScanUnits {
  int computing = 1;                          ///< threads that may compute at a time
  int workers = 1;                            ///< threads in all: the others read meanwhile
  uint64_t buffer_bytes = 0;                  ///< of each worker: a unit of base and one expert
  std::vector<std::vector<uint64_t>> blocks;  ///< those wanted, for each part
  std::vector<ScanUnit> units;                ///< in file order
};

/// kNoSpace if not even one thread can hold a block.
Result<ScanUnits> CutScan(const ScanSlice& slice, const ExecLimits& limits);

}  // namespace mergepipe
