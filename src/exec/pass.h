#pragma once

#include <functional>

#include "exec/chunk.h"
#include "mergepipe/comm/communicator.h"
#include "mergepipe/exec/slice.h"

namespace mergepipe {

/// How work on a part ended.
enum class PartOutcome {
  kDone,
  kStopped,  ///< another rank has failed: its error comes out at the next Agree
};

/// Which blocks of a part are visited.
enum class PassOver { kAllBlocks, kTouchedBlocks };

/// Visits a part's blocks in ascending order, `chunk_blocks` at a time, until a visit fails or
/// another rank has announced a failure.
Result<PartOutcome> ForEachChunk(Communicator& communicator, const TensorPart& part,
                                 const BlockGeometry& geometry, uint64_t chunk_blocks,
                                 PassOver over, const std::function<Status(const Chunk&)>& visit);

}  // namespace mergepipe
