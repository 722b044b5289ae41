#pragma once

#include "exec/part_inputs.h"

namespace mergepipe {

/// NaN and Inf of one block.
struct BlockCounts {
  std::vector<NonFiniteCount> inputs;  ///< as PartReport::inputs
  NonFiniteCount made;
};

/// Makes the blocks of one part and reports them. Blocks may be made from several threads at a
/// time.
class BlockMaker {
 public:
  /// `tensor` is null if nothing is merged.
  BlockMaker(const TensorPart& part, const TensorMerge* tensor, PartInputs& inputs,
             PartReport& report)
      : part_(part), tensor_(tensor), inputs_(inputs), report_(report) {}

  /// Whether the block comes from a buffer of its own, else from the base as it is stored.
  bool UsesOut(uint64_t block) const {
    return part_.out_dtype != part_.base.dtype || part_.touched.Contains(BlockIndex(block));
  }
  /// Makes block i of a loaded chunk: in `buffer`, where UsesOut says so. There a block that is
  /// taken over lies already.
  BlockCounts Make(const Chunk& chunk, size_t i, ChunkBuffer& buffer);

 private:
  NonFiniteCount Merge(const Chunk& chunk, size_t i, std::span<std::byte> out,
                       std::vector<NonFiniteCount>& counts);

  const TensorPart& part_;
  const TensorMerge* tensor_;
  PartInputs& inputs_;
  PartReport& report_;
};

}  // namespace mergepipe
