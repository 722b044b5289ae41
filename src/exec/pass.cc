#include "exec/pass.h"

namespace mergepipe {

Result<PartOutcome> ForEachChunk(Communicator& communicator, const TensorPart& part,
                                 const BlockGeometry& geometry, uint64_t chunk_blocks,
                                 PassOver over, const std::function<Status(const Chunk&)>& visit) {
  Chunk chunk{geometry, {}, 0, 0};
  uint64_t touched = 0;
  for (uint64_t block = part.begin; block < part.end;) {
    for (; block < part.end && chunk.size() < chunk_blocks; ++block) {
      const bool is_touched = part.touched.Contains(BlockIndex(block));
      if (over == PassOver::kAllBlocks || is_touched) chunk.blocks.push_back(block);
      if (is_touched) ++touched;
    }
    if (chunk.blocks.empty()) break;
    if (communicator.FailureAnnounced()) return PartOutcome::kStopped;
    MERGEPIPE_RETURN_IF_ERROR(visit(chunk));
    chunk.blocks_before += chunk.size();
    chunk.touched_before = touched;
    chunk.blocks.clear();
  }
  return PartOutcome::kDone;
}

}  // namespace mergepipe
