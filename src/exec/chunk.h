#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "exec/aligned_buffer.h"
#include "exec/block_geometry.h"
#include "mergepipe/base/dtype.h"

namespace mergepipe {

/// Some blocks of a part that are in memory together, ascending. The chunks of a pass over a part
/// follow each other; blocks that the pass leaves out lie between.
struct Chunk {
  BlockGeometry geometry{};
  std::vector<uint64_t> blocks;
  uint64_t blocks_before = 0;   ///< in earlier chunks of the pass
  uint64_t touched_before = 0;  ///< of these, how many are touched

  size_t size() const { return blocks.size(); }
  uint64_t FirstElement(size_t i) const { return geometry.FirstElement(blocks[i]); }
  /// Elements of the blocks with indexes [first, last).
  uint64_t Elements(size_t first, size_t last) const;
  /// The index after that of the last block which follows blocks[first] without a gap.
  size_t EndOfRun(size_t first) const;
};

/// Stored elements of a chunk's blocks, one block after the other.
class ChunkBuffer {
 public:
  /// The content is lost. Throws std::bad_alloc.
  void Reserve(const Chunk& chunk, DType dtype);
  /// The blocks with indexes [first, last) of the chunk that Reserve was called with.
  std::span<std::byte> Run(const Chunk& chunk, size_t first, size_t last);
  std::span<std::byte> Block(const Chunk& chunk, size_t i) { return Run(chunk, i, i + 1); }

 private:
  AlignedBuffer buffer_;
  uint64_t element_size_ = 0;
};

}  // namespace mergepipe
