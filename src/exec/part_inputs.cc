#include "exec/part_inputs.h"

#include <cstring>

#include "exec/transfers.h"
#include "exec/unchanged_file.h"

namespace mergepipe {

Status PartInputs::Open(const TensorPart& part) {
  MERGEPIPE_RETURN_IF_ERROR(sources_.OpenFor(part));
  if (part.sparse.present && !sparse_) {
    MERGEPIPE_ASSIGN_OR_RETURN(sparse_, OpenUnchanged(files_, slice_.sparse_file));
  }
  return {};
}

Status PartInputs::LoadBase(const TensorPart& part, const Chunk& chunk) {
  base_.Reserve(chunk, part.base.dtype);
  std::vector<FileRead> runs;
  for (size_t first = 0; first < chunk.size();) {
    const size_t last = chunk.EndOfRun(first);
    const uint64_t skipped = chunk.FirstElement(first) * DTypeSize(part.base.dtype);
    runs.push_back({&sources_.Base(part.base.file), part.base.offset + skipped,
                    base_.Run(chunk, first, last)});
    first = last;
  }
  return ReadAll(runs, threads_);
}

Status PartInputs::LoadExperts(const TensorPart& part, const Chunk& chunk) {
  return window_.Load(sources_, part, GeometryOf(part), chunk.blocks.front(),
                      chunk.blocks.back() + 1, threads_);
}

Status PartInputs::HoldExperts(const TensorPart& part) {
  return window_.Load(sources_, part, GeometryOf(part), part.begin, part.end, threads_);
}

Status PartInputs::LoadMade(const TensorPart& part, const Chunk& chunk, ChunkBuffer& out) {
  const uint64_t block_bytes = slice_.block_size * DTypeSize(part.sparse.dtype);
  uint64_t offset = part.sparse.offset + chunk.touched_before * block_bytes;
  std::vector<FileRead> runs;
  for (size_t i = 0; i < chunk.size(); ++i) {
    if (!part.touched.Contains(BlockIndex(chunk.blocks[i]))) continue;
    runs.push_back({sparse_.get(), offset, out.Block(chunk, i)});
    offset += block_bytes;
  }
  return ReadAll(runs, threads_);
}

Status PartInputs::Compare(const TensorPart& part, const Chunk& chunk, PartReport& report) {
  compared_.Reserve(chunk, part.base.dtype);
  const std::span<std::byte> compared = compared_.Run(chunk, 0, chunk.size());
  const std::span<std::byte> base = base_.Run(chunk, 0, chunk.size());
  for (size_t k = 0; k < part.experts.size(); ++k) {
    const SourceTensor& source = part.experts[k];
    if (!source.present) continue;
    const uint64_t skipped = chunk.FirstElement(0) * DTypeSize(source.dtype);
    MERGEPIPE_RETURN_IF_ERROR(
        sources_.ExpertForComparing(k, source.file).ReadAt(source.offset + skipped, compared));
    if (!compared.empty() && std::memcmp(compared.data(), base.data(), compared.size()) != 0)
      report.differs[k] = 1;
  }
  return {};
}

StoredBlockDeltas PartInputs::Deltas(const TensorPart& part, const Chunk& chunk, size_t i) {
  const uint64_t block = chunk.blocks[i];
  StoredBlockDeltas deltas(chunk.FirstElement(i), chunk.Elements(i, i + 1),
                           {part.base.dtype, base_.Block(chunk, i)});
  for (size_t k = 0; k < part.experts.size(); ++k) {
    if (!part.selected[k].Contains(BlockIndex(block))) continue;
    deltas.AddExpert(ExpertIndex(static_cast<uint32_t>(k)),
                     {part.experts[k].dtype, window_.Block(k, block)});
  }
  return deltas;
}

}  // namespace mergepipe
