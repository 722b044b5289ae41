#include "exec/expert_window.h"

#include "exec/transfers.h"

namespace mergepipe {
uint64_t ExpertWindow::SizeOf(const TensorPart& part, const BlockGeometry& geometry, uint64_t begin,
                              uint64_t end) {
  uint64_t bytes = 0;
  for (size_t k = 0; k < part.experts.size(); ++k) {
    const uint64_t size = DTypeSize(part.experts[k].dtype);
    for (uint64_t block = begin; block < end; ++block) {
      if (part.selected[k].Contains(BlockIndex(block))) bytes += geometry.Elements(block) * size;
    }
  }
  return bytes;
}

Status ExpertWindow::Load(SourceFiles& sources, const TensorPart& part,
                          const BlockGeometry& geometry, uint64_t begin, uint64_t end,
                          int threads) {
  geometry_ = geometry;
  begin_ = begin;
  buffers_.resize(part.experts.size());
  block_offsets_.assign(part.experts.size(), std::vector<uint64_t>(end - begin));
  element_sizes_.assign(part.experts.size(), 0);
  std::vector<FileRead> reads;
  for (size_t k = 0; k < part.experts.size(); ++k) {
    const SourceTensor& source = part.experts[k];
    const BlockSet selected = part.selected[k].Within(BlockIndex(begin), BlockIndex(end));
    if (selected.Empty()) continue;
    const uint64_t size = element_sizes_[k] = DTypeSize(source.dtype);
    uint64_t total = 0;
    selected.ForEachRun([&](BlockIndex first, BlockIndex last) {
      for (uint64_t block = first.value; block < last.value; ++block) {
        block_offsets_[k][block - begin] = total;
        total += geometry.Elements(block) * size;
      }
    });
    buffers_[k].Reserve(total);
    selected.ForEachRun([&](BlockIndex first, BlockIndex last) {
      reads.push_back({&sources.Expert(k, source.file),
                       source.offset + geometry.FirstElement(first.value) * size,
                       {buffers_[k].data() + block_offsets_[k][first.value - begin],
                        geometry.ElementsBetween(first.value, last.value) * size}});
    });
  }
  return ReadAll(reads, threads);
}

std::span<const std::byte> ExpertWindow::Block(size_t expert, uint64_t block) const {
  const std::byte* data = buffers_[expert].data();
  return {data + block_offsets_[expert][block - begin_],
          geometry_.Elements(block) * element_sizes_[expert]};
}

void ExpertWindow::Free() {
  for (AlignedBuffer& buffer : buffers_) buffer.Free();
}

}  // namespace mergepipe
