#pragma once

#include "exec/block_deltas.h"
#include "exec/chunk.h"
#include "exec/expert_window.h"
#include "mergepipe/exec/report.h"

namespace mergepipe {

/// What the blocks of a chunk are made from: the base's bytes, and the experts' or those of a
/// sparse output. Loading is for one thread; what is loaded may be looked at from several.
class PartInputs {
 public:
  PartInputs(FileSystem& files, const Slice& slice, SourceFiles& sources, int threads)
      : files_(files), slice_(slice), sources_(sources), threads_(threads) {}

  /// Opens the files that `part` needs.
  Status Open(const TensorPart& part);

  Status LoadBase(const TensorPart& part, const Chunk& chunk);
  /// The experts' selected blocks: those of a chunk with all touched blocks between its first and
  /// last, or those of the whole part.
  Status LoadExperts(const TensorPart& part, const Chunk& chunk);
  Status HoldExperts(const TensorPart& part);
  /// The touched blocks as the sparse file has them, into their places in `out`.
  Status LoadMade(const TensorPart& part, const Chunk& chunk, ChunkBuffer& out);
  /// Reads the experts' versions of an integer tensor and notes which differ from the base's.
  /// `chunk` is loaded, without gaps.
  Status Compare(const TensorPart& part, const Chunk& chunk, PartReport& report);

  std::span<std::byte> Base(const Chunk& chunk, size_t first, size_t last) {
    return base_.Run(chunk, first, last);
  }
  std::span<const std::byte> Expert(size_t expert, uint64_t block) const {
    return window_.Block(expert, block);
  }
  StoredBlockDeltas Deltas(const TensorPart& part, const Chunk& chunk, size_t i);
  /// Lets go of what HoldExperts took.
  void Free() { window_.Free(); }

 private:
  BlockGeometry GeometryOf(const TensorPart& part) const {
    return {slice_.block_size, part.elements};
  }

  FileSystem& files_;
  const Slice& slice_;
  SourceFiles& sources_;
  int threads_;
  std::unique_ptr<ReadableFile> sparse_;
  ChunkBuffer base_;
  ChunkBuffer compared_;
  ExpertWindow window_;
};

}  // namespace mergepipe
