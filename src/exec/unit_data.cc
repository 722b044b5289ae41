#include "exec/unit_data.h"

#include "exec/direct_place.h"

namespace mergepipe {
namespace {

// Bytes that one call reads.
struct Run {
  SourceFiles::Handle file;
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t place = 0;  // in the buffer
};

// Lays runs out in a buffer and reads them.
class RunList {
 public:
  // Returns the place of a block's bytes in the buffer.
  uint64_t Add(const SourceFiles::Handle& file, uint64_t offset, uint64_t length) {
    if (runs_.empty() || runs_.back().file != file ||
        runs_.back().offset + runs_.back().length != offset) {
      end_ = DirectPlace(offset, end_);
      runs_.push_back({file, offset, 0, end_});
    }
    const uint64_t place = end_;
    runs_.back().length += length;
    end_ += length;
    return place;
  }

  uint64_t size() const { return end_; }

  Status ReadInto(std::byte* buffer) const {
    for (const Run& run : runs_)
      MERGEPIPE_RETURN_IF_ERROR(run.file->ReadAt(run.offset, {buffer + run.place, run.length}));
    return {};
  }

 private:
  std::vector<Run> runs_;
  uint64_t end_ = 0;
};

constexpr uint64_t kAbsent = UINT64_MAX;
using Offsets = std::vector<uint64_t>;

BlockPlaces PlacesIn(std::byte* buffer, const Offsets& offsets) {
  BlockPlaces places(offsets.size());
  for (size_t i = 0; i < offsets.size(); ++i)
    places[i] = offsets[i] == kAbsent ? nullptr : buffer + offsets[i];
  return places;
}

// Where a block of a tensor as `source` has it lies in the file.
uint64_t FileOffset(const SourceTensor& source, const BlockGeometry& geometry, uint64_t block) {
  return source.offset + geometry.FirstElement(block) * DTypeSize(source.dtype);
}

}  // namespace

// Each run is moved to its offset modulo 4 KiB.
uint64_t UnitLoader::BaseMemory(const UnitBytes& bytes) {
  return BufferPool::SizeOf(bytes.base + bytes.base_runs * kDirectAlignment);
}

uint64_t UnitLoader::ExpertMemory(const UnitBytes& bytes) {
  return BufferPool::SizeOf(bytes.experts + bytes.expert_runs * kDirectAlignment);
}

void UnitData::Release(BufferPool& pool) {
  pool.Give(base_buffer);
  pool.Give(expert_buffer);
  *this = UnitData();
}

Status UnitLoader::LoadBase(const WorkUnit& unit, UnitData& data) const {
  RunList runs;
  Offsets offsets(unit.blocks(), kAbsent);
  for (const UnitPiece& piece : unit.pieces) {
    const TensorPart& part = slice_.parts[piece.part];
    const BlockGeometry geometry{slice_.block_size, part.elements};
    MERGEPIPE_ASSIGN_OR_RETURN(const auto file, sources_.Base(part.base.file));
    for (size_t i = 0; i < piece.blocks.size(); ++i) {
      const uint64_t block = piece.blocks[i];
      if (IsCopied(slice_, part, block)) continue;
      offsets[piece.first_block + i] =
          runs.Add(file, FileOffset(part.base, geometry, block),
                   geometry.Elements(block) * DTypeSize(part.base.dtype));
    }
  }
  data.base_buffer = pool_.Take(runs.size());
  MERGEPIPE_RETURN_IF_ERROR(runs.ReadInto(data.base_buffer.data()));
  data.base = PlacesIn(data.base_buffer.data(), offsets);
  return {};
}

Status UnitLoader::LoadExperts(const WorkUnit& unit, UnitData& data) const {
  const size_t experts = slice_.expert_files.size();
  RunList runs;
  std::vector<Offsets> offsets(experts, Offsets(unit.blocks(), kAbsent));
  Offsets made(unit.blocks(), kAbsent);
  for (size_t k = 0; k < experts; ++k) {
    for (const UnitPiece& piece : unit.pieces) {
      const TensorPart& part = slice_.parts[piece.part];
      if (part.experts.empty() || !part.experts[k].present) continue;
      const BlockGeometry geometry{slice_.block_size, part.elements};
      const SourceTensor& source = part.experts[k];
      SourceFiles::Handle file;
      for (size_t i = 0; i < piece.blocks.size(); ++i) {
        const uint64_t block = piece.blocks[i];
        if (!part.compare && !part.selected[k].Contains(BlockIndex(block))) continue;
        if (!file) {
          MERGEPIPE_ASSIGN_OR_RETURN(file, part.compare
                                               ? sources_.ExpertForComparing(k, source.file)
                                               : sources_.Expert(k, source.file));
        }
        offsets[k][piece.first_block + i] =
            runs.Add(file, FileOffset(source, geometry, block),
                     geometry.Elements(block) * DTypeSize(source.dtype));
      }
    }
  }
  for (const UnitPiece& piece : unit.pieces) {
    const TensorPart& part = slice_.parts[piece.part];
    if (!part.sparse.present) continue;
    const BlockGeometry geometry{slice_.block_size, part.elements};
    const uint64_t size = DTypeSize(part.sparse.dtype);
    MERGEPIPE_ASSIGN_OR_RETURN(const auto file, sources_.Made(slice_.sparse_file));
    uint64_t before = part.touched.Within(BlockIndex(0), BlockIndex(piece.blocks.front())).Count();
    for (size_t i = 0; i < piece.blocks.size(); ++i) {
      const uint64_t block = piece.blocks[i];
      if (!part.touched.Contains(BlockIndex(block))) continue;
      made[piece.first_block + i] =
          runs.Add(file, part.sparse.offset + before * slice_.block_size * size,
                   geometry.Elements(block) * size);
      ++before;
    }
  }
  data.expert_buffer = pool_.Take(runs.size());
  MERGEPIPE_RETURN_IF_ERROR(runs.ReadInto(data.expert_buffer.data()));
  data.experts.clear();
  for (const Offsets& list : offsets)
    data.experts.push_back(PlacesIn(data.expert_buffer.data(), list));
  if (experts == 0) data.experts.emplace_back();  // loaded, though there is none
  data.made = PlacesIn(data.expert_buffer.data(), made);
  return {};
}

std::span<std::byte> BytesAt(std::byte* place, const BlockGeometry& geometry, uint64_t block,
                             DType dtype) {
  return {place, geometry.Elements(block) * DTypeSize(dtype)};
}

BlockDeltas DeltasOf(const Slice& slice, const UnitPiece& piece, size_t i, const UnitData& data) {
  const TensorPart& part = slice.parts[piece.part];
  const BlockGeometry geometry{slice.block_size, part.elements};
  const uint64_t block = piece.blocks[i];
  const size_t at = piece.first_block + i;
  BlockDeltas deltas(geometry.FirstElement(block), geometry.Elements(block),
                     {part.base.dtype, BytesAt(data.base[at], geometry, block, part.base.dtype)});
  for (size_t k = 0; k < part.experts.size(); ++k) {
    if (data.experts[k][at] == nullptr) continue;
    const DType dtype = part.experts[k].dtype;
    deltas.AddExpert(ExpertIndex(static_cast<uint32_t>(k)),
                     {dtype, BytesAt(data.experts[k][at], geometry, block, dtype)});
  }
  return deltas;
}

}  // namespace mergepipe
