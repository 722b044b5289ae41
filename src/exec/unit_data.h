#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "exec/block_geometry.h"
#include "exec/source_files.h"
#include "exec/work_units.h"
#include "mergepipe/io/buffer_pool.h"
#include "mergepipe/strategy/strategy.h"

namespace mergepipe {

/// A place in a unit's buffer for each of its blocks; null for one that is not there.
using BlockPlaces = std::vector<std::byte*>;

/// The stored bytes of one unit. Blocks that follow each other in a file follow each other in
/// memory, and every run lies at its file's offset modulo 4 KiB, so that it can be transferred
/// directly.
struct UnitData {
  std::span<std::byte> base_buffer;
  std::span<std::byte> expert_buffer;
  BlockPlaces base;
  std::vector<BlockPlaces> experts;  ///< of blocks that are selected, or compared
  BlockPlaces made;                  ///< of blocks that a sparse output has

  bool has_base() const { return !base.empty(); }
  bool has_experts() const { return !experts.empty(); }
  /// Gives the buffers back. Their memory is the pool's: it outlives this.
  void Release(BufferPool& pool);
};

/// Reads units: each run of bytes with one call, in file order. Thread-safe for different data.
class UnitLoader {
 public:
  UnitLoader(const Slice& slice, SourceFiles& sources, BufferPool& pool)
      : slice_(slice), sources_(sources), pool_(pool) {}

  /// Blocks that are copied from file to file are not read.
  Status LoadBase(const WorkUnit& unit, UnitData& data) const;
  /// The experts' selected blocks, or those to compare; and what a sparse output has made.
  Status LoadExperts(const WorkUnit& unit, UnitData& data) const;

  /// What the buffers of a unit take of the pool, at most.
  static uint64_t BaseMemory(const UnitBytes& bytes);
  static uint64_t ExpertMemory(const UnitBytes& bytes);

 private:
  const Slice& slice_;
  SourceFiles& sources_;
  BufferPool& pool_;
};

/// Block `i` of a piece of a loaded unit with the experts that are selected in it.
BlockDeltas DeltasOf(const Slice& slice, const UnitPiece& piece, size_t i, const UnitData& data);

/// The stored bytes at a place.
std::span<std::byte> BytesAt(std::byte* place, const BlockGeometry& geometry, uint64_t block,
                             DType dtype);

}  // namespace mergepipe
