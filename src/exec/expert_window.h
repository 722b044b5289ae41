#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "exec/aligned_buffer.h"
#include "exec/block_geometry.h"
#include "exec/source_files.h"

namespace mergepipe {

/// The stored bytes of the selected blocks of every expert, for some consecutive blocks of a part.
/// Read with large reads in file order; blocks that follow each other in a file are read together.
class ExpertWindow {
 public:
  /// Bytes that a window over blocks [begin, end) holds.
  static uint64_t SizeOf(const TensorPart& part, const BlockGeometry& geometry, uint64_t begin,
                         uint64_t end);

  Status Load(SourceFiles& sources, const TensorPart& part, const BlockGeometry& geometry,
              uint64_t begin, uint64_t end, int threads);

  /// Bytes of a selected block in [begin, end) of the last Load.
  std::span<const std::byte> Block(size_t expert, uint64_t block) const;
  void Free();

 private:
  BlockGeometry geometry_{};
  uint64_t begin_ = 0;
  std::vector<AlignedBuffer> buffers_;  ///< one for each expert
  std::vector<std::vector<uint64_t>>
      block_offsets_;  ///< by expert and block - begin_, into its buffer
  std::vector<uint64_t> element_sizes_;
};

}  // namespace mergepipe
