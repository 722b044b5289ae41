#include "exec/expert_window.h"

#include <algorithm>

#include "mergepipe/kernels/parallel.h"

namespace mergepipe {
namespace {

// Large enough for every disk and network filesystem, small enough that threads share the work.
constexpr uint64_t kMaxRead = 16 * kMiB;

struct Read {
  ReadableFile* file;
  uint64_t offset;
  std::span<std::byte> out;
};

void AddReads(ReadableFile& file, uint64_t offset, std::span<std::byte> out,
              std::vector<Read>& reads) {
  while (!out.empty()) {
    const size_t size = std::min<size_t>(out.size(), kMaxRead);
    reads.push_back({&file, offset, out.first(size)});
    offset += size;
    out = out.subspan(size);
  }
}

}  // namespace

uint64_t BlockGeometry::ElementsBetween(uint64_t begin, uint64_t end) const {
  return std::min(elements, end * block_size) - std::min(elements, begin * block_size);
}

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
  std::vector<Read> reads;
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
      AddReads(sources.Expert(k, source.file),
               source.offset + geometry.FirstElement(first.value) * size,
               {buffers_[k].data() + block_offsets_[k][first.value - begin],
                geometry.ElementsBetween(first.value, last.value) * size},
               reads);
    });
  }
  return ParallelFor(reads.size(), threads, [&](uint64_t i) {
    return reads[i].file->ReadAt(reads[i].offset, reads[i].out);
  });
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
